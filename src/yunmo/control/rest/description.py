"""The API's own description: OpenAPI with each deployed endpoint's typed schema, and the same as a page."""

from __future__ import annotations

import html
import json
import logging
from typing import Any

from fastapi import FastAPI, Response
from fastapi.openapi.utils import get_openapi

from yunmo import __version__
from yunmo.control.context import Context
from yunmo.control.rest.access import Reader
from yunmo.control.rest.pages import page
from yunmo.control.services.endpoints import Endpoints
from yunmo.core.errors import YunmoError

_logger = logging.getLogger("yunmo.control")
_METHODS = ("get", "post", "put", "delete")
_PROBLEM = {
    "type": "object",
    "required": ["type", "title", "status", "code", "detail"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string", "description": "stable name of the kind of error"},
        "detail": {"type": "string", "description": "what is wrong"},
        "where": {"type": "string", "description": "file, row, field or key"},
        "remedy": {"type": "string", "description": "what to do about it"},
        "instance": {"type": "string", "description": "id of the request, as in the log"},
    },
}
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}
summary{cursor:pointer;padding:.4rem 0}code,pre{font:14px/1.45 ui-monospace,monospace}
small{opacity:.7;margin-left:.6rem}
pre{background:#f3f4f6;padding:.8rem;overflow:auto;border-radius:6px}
.method{display:inline-block;min-width:4.5rem;font-weight:600;text-transform:uppercase}h2{margin-top:2rem}
@media(prefers-color-scheme:dark){body{color:#e6e8eb;background:#15181c}pre{background:#20252b}a{color:#8ab4ff}}
"""


def add_routes(app: FastAPI, context: Context) -> None:
    """Add ``/openapi.json`` and ``/docs`` to an application, after all other routes."""

    @app.get("/openapi.json", include_in_schema=False)
    def describe_api(principal: Reader) -> dict[str, Any]:
        return describe(app, context, principal.project_id)

    @app.get("/docs", include_in_schema=False)
    def show_docs(principal: Reader) -> Response:
        return page(render(describe(app, context, principal.project_id)))


def describe(app: FastAPI, context: Context, project_id: str) -> dict[str, Any]:
    """Return the OpenAPI description, with what each deployed endpoint of a project takes and answers."""
    description = get_openapi(
        title="Yunmo",
        version=__version__,
        summary="Bring data, get a model",
        description="Every request needs a key: `Authorization: Bearer ym_...`. Errors are RFC 9457 problem documents.",
        routes=app.routes,
    )
    components = description.setdefault("components", {})
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    components.setdefault("schemas", {})["Problem"] = _PROBLEM
    description["security"] = [{"key": []}]
    failure = {
        "description": "An error",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    for endpoint in Endpoints(context).list(project_id):
        try:
            live = endpoint.live
            paths = _endpoint_paths(context, endpoint.name, live.model, live.version, live.digest)
        except (YunmoError, OSError) as error:
            # A bundle that cannot be read must not take the description of everything else with it.
            _logger.error("endpoint %s is not described", endpoint.name, exc_info=error)
            continue
        description["paths"].update(paths)
    for path in description["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = failure
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    return description


def _endpoint_paths(context: Context, name: str, model: str, version: int, digest: str) -> dict[str, Any]:
    from yunmo.bundle.read import open_bundle
    from yunmo.core.fields import CategoryOutput, ImageField
    from yunmo.data.fields.registry import open_field
    from yunmo.inference.schema import input_schema, output_schema

    bundle = open_bundle(context.workspace.bundle_folder(digest), context.trusted_key())
    manifest = bundle.manifest
    fields = {spec.name: open_field(spec, bundle.statistics.get(spec.name)) for spec in manifest.inputs}
    categories = {
        output.name: list(output.categories or ()) for output in manifest.outputs if isinstance(output, CategoryOutput)
    }
    row = input_schema(fields)
    rows = {"type": "array", "items": row}
    content: dict[str, Any] = {"application/json": {"schema": {"oneOf": [row, rows]}}}
    if len(manifest.inputs) == 1 and isinstance(manifest.inputs[0], ImageField):
        content["image/*"] = {"schema": {"type": "string", "format": "binary"}}
    answer = {
        "type": "object",
        "required": ["predictions"],
        "properties": {"predictions": {"type": "array", "items": output_schema(manifest.outputs, categories)}},
    }
    return {
        f"/api/v1/endpoints/{name}/predict": {
            "post": {
                "tags": [f"endpoint {name}"],
                "summary": f"Ask {model}:{version}",
                "operationId": f"predict_{name}",
                "requestBody": {"required": True, "content": content},
                "responses": {
                    "200": {
                        "description": "A prediction for each row",
                        "content": {"application/json": {"schema": answer}},
                    }
                },
            }
        },
        f"/api/v1/endpoints/{name}/schema": {
            "get": {
                "tags": [f"endpoint {name}"],
                "summary": f"What {model}:{version} takes and answers, as JSON Schemas",
                "operationId": f"schema_{name}",
                "responses": {"200": {"description": "The schemas", "content": {"application/json": {}}}},
            }
        },
    }


def render(description: dict[str, Any]) -> str:
    """Return an OpenAPI description as a page that loads and runs nothing."""
    groups: dict[str, list[str]] = {}
    for path, operations in description["paths"].items():
        for method in _METHODS:
            if method in operations:
                operation = operations[method]
                groups.setdefault(operation.get("tags", ["other"])[0], []).append(_operation(path, method, operation))
    # What a person deployed comes first.
    ordered = sorted(groups.items(), key=lambda group: not group[0].startswith("endpoint "))
    sections = "".join(f"<h2>{html.escape(tag)}</h2>{''.join(parts)}" for tag, parts in ordered)
    schemas = "".join(
        f"<details><summary><code>{html.escape(name)}</code></summary>{_json(schema)}</details>"
        for name, schema in description["components"]["schemas"].items()
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Yunmo API</title><style>{_STYLE}</style>'
        f'<meta name="viewport" content="width=device-width"></head><body><h1>Yunmo {html.escape(__version__)}</h1>'
        f"<p>{html.escape(description['info']['description'])} For machines: <a href='/openapi.json'>/openapi.json</a>."
        f"</p>{sections}<h2>schemas</h2>{schemas}</body></html>"
    )


def _operation(path: str, method: str, operation: dict[str, Any]) -> str:
    what = html.escape(operation.get("description") or operation.get("summary", ""))
    parts = [f"<p>{what}</p>"]
    if parameters := operation.get("parameters"):
        parts.append(f"<p>Parameters</p>{_json(parameters)}")
    if body := operation.get("requestBody"):
        parts.append(f"<p>Body</p>{_json(body['content'])}")
    answers = {status: answer.get("content", {}) for status, answer in operation["responses"].items()}
    parts.append(f"<p>Answers</p>{_json(answers)}")
    first_line = what.split("\n", 1)[0]
    title = f"<span class=method>{method}</span><code>{html.escape(path)}</code> <small>{first_line}</small>"
    return f"<details><summary>{title}</summary>{''.join(parts)}</details>"


def _json(value: object) -> str:
    return f"<pre>{html.escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"
