"""``/metrics``: what monitoring knows, for keys with the scope ``read``."""

from __future__ import annotations

import asyncio
from typing import Protocol

from yunmo.core.access import DEFAULT_PROJECT
from yunmo.core.errors import Forbidden, NotFound, YunmoError
from yunmo.serving.http import Handler, Request, Response, allow, problem_response
from yunmo.serving.observer import Face

PATH = "/metrics"


class MetricsSource(Protocol):
    """Makes the page; `yunmo.monitoring.metrics.Metrics` does."""

    def page(self, *, project: str | None, accept: str) -> tuple[bytes, str]:
        """Return the page and its media type; called in a thread.

        Args:
            project: only what concerns this one, and the service itself; None: everything.
            accept: the value of the request's Accept header.
        """


class MetricsFace:
    """The page of metrics.

    Keys of the default project, which is the operator's, see everything; others see what is their project's.

    Args:
        source: makes the page; None: metrics are off.
    """

    def __init__(self, source: MetricsSource | None) -> None:
        self.name: Face = "management"
        self._source = source

    def owns(self, path: str) -> bool:
        """Its one path."""
        return path == PATH

    def find(self, request: Request) -> Handler | None:
        """Return what answers a request."""
        return allow(self, request, ("GET", "HEAD"), self._page)

    def refuse(self, error: YunmoError, request: Request) -> Response:
        """Return an error as an RFC 9457 problem document."""
        return problem_response(error, request.id)

    async def _page(self, request: Request) -> Response:
        principal = request.principal
        if not principal.may("read"):
            raise Forbidden("this key may not see metrics", remedy="Use a key with the scope 'read'")
        if self._source is None:
            raise NotFound("metrics are off", remedy="Set 'metrics: true' in the workspace's settings.yaml")
        project = None if principal.project_id == DEFAULT_PROJECT else principal.project_id
        accept = request.header("accept") or ""
        body, media_type = await asyncio.to_thread(self._source.page, project=project, accept=accept)
        return Response(200, body, media_type)
