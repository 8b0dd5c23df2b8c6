"""Answers that are no resources: JSON documents, HTML pages, files."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import Request, Response

_PAGE_HEADERS = {
    # A page holds everything itself: nothing is loaded, nothing runs.
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox",
    "x-content-type-options": "nosniff",
}


def wants_page(request: Request) -> bool:
    """Say whether the caller prefers HTML to JSON, as browsers do."""
    return "text/html" in request.headers.get("accept", "")


def page(html: str) -> Response:
    """Return a self-contained HTML page."""
    return Response(html, media_type="text/html; charset=utf-8", headers=_PAGE_HEADERS)


def document(value: dict[str, Any]) -> Response:
    """Return a JSON document; numbers that JSON has not become null."""
    return Response(msgspec.json.encode(value), media_type="application/json")
