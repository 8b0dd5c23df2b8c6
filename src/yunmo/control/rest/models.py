"""Routes of models and their versions."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import Body, FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import PositiveInt

from yunmo.control.context import Context
from yunmo.control.rest.access import Reader, Writer
from yunmo.control.rest.pages import document, page, wants_page
from yunmo.control.services.models import Models
from yunmo.core.resources import ModelVersion, NewEvaluation, NewImport, Verification

_BYTES = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}

_BOM = "application/vnd.cyclonedx+json; version=1.6"


def add_routes(app: FastAPI, prefix: str, context: Context) -> None:
    """Add the routes to an application."""
    models = Models(context)
    version_path = f"{prefix}/models/{{name}}/{{version}}"
    _add_content_routes(app, version_path, models)

    @app.get(f"{prefix}/models", tags=["models"])
    def list_models(principal: Reader) -> list[ModelVersion]:
        """List the versions of all models."""
        return models.list(principal.project_id)

    @app.post(f"{prefix}/models", status_code=201, tags=["models"], openapi_extra=_BYTES)
    async def import_model(request: Request, principal: Writer) -> ModelVersion:
        """Import a bundle: the raw body is its archive. It becomes the next version of the model that it names."""
        artefact = await models.receive(request.stream())
        return await asyncio.to_thread(models.import_bundle, principal.project_id, artefact)

    @app.post(f"{prefix}/models/import", status_code=201, tags=["models"])
    def import_onnx_file(request: NewImport, principal: Writer) -> ModelVersion:
        """Import an uploaded ONNX file: a bundle is made of it, the next version of the model of its name."""
        return models.import_onnx(principal.project_id, request)

    @app.get(f"{prefix}/models/{{name}}", tags=["models"])
    def list_model_versions(name: str, principal: Reader) -> list[ModelVersion]:
        """List the versions of a model."""
        return models.list(principal.project_id, name)

    @app.put(f"{prefix}/models/{{name}}/aliases/{{alias}}", tags=["models"])
    def set_model_alias(
        name: str, alias: str, version: Annotated[PositiveInt, Body(embed=True)], principal: Writer
    ) -> ModelVersion:
        """Let an alias mean a version."""
        return models.set_alias(principal.project_id, name, alias, version)

    @app.get(version_path, tags=["models"])
    def show_model_version(name: str, version: int, principal: Reader) -> ModelVersion:
        """Show a version of a model."""
        return models.get(principal.project_id, name, version)

    @app.get(f"{version_path}/verify", tags=["models"])
    def verify_model_version(name: str, version: int, principal: Reader) -> Verification:
        """Check a version's signature and every byte of its bundle."""
        return models.verify(principal.project_id, name, version)

    @app.post(f"{version_path}/evaluate", tags=["models"])
    def evaluate_model_version(name: str, version: int, request: NewEvaluation, principal: Writer) -> dict[str, Any]:
        """Evaluate a version on uploaded data with known answers; the metrics of each output."""
        return models.evaluate(principal.project_id, name, version, request)


def _add_content_routes(app: FastAPI, version_path: str, models: Models) -> None:
    """Add what is in a version's bundle: all of it, its report, its bill of materials."""

    @app.get(f"{version_path}/bundle", tags=["models"], response_class=StreamingResponse)
    def export_model_version(name: str, version: int, principal: Reader) -> StreamingResponse:
        """Export a version: its signed bundle as one file."""
        found, chunks = models.export(principal.project_id, name, version)
        return StreamingResponse(
            chunks,
            media_type="application/zip",
            headers={
                "content-length": str(found.size),
                "content-disposition": f'attachment; filename="{found.model}-{found.version}.zip"',
            },
        )

    @app.get(f"{version_path}/report", tags=["models"], response_class=Response)
    def show_model_report(name: str, version: int, request: Request, principal: Reader) -> Response:
        """Show the report in a version's bundle: JSON, or a page if ``Accept`` asks for HTML."""
        if wants_page(request):
            return page(models.report_page(principal.project_id, name, version))
        return document(models.report(principal.project_id, name, version))

    @app.get(f"{version_path}/bom", tags=["models"], response_class=Response)
    def show_model_bom(name: str, version: int, principal: Reader) -> Response:
        """Show the bill of materials in a version's bundle: CycloneDX, with a model card and the data's digests."""
        return Response(models.bom(principal.project_id, name, version), media_type=_BOM)
