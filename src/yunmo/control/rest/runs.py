"""Routes of runs, and the stream of their events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from fastapi import FastAPI, Header, Request, Response
from fastapi.responses import StreamingResponse

from yunmo.control.context import Context
from yunmo.control.rest.access import Reader, Writer
from yunmo.control.rest.pages import document, page, wants_page
from yunmo.control.services.runs import Runs
from yunmo.core.events import RUN_ENDINGS, Envelope
from yunmo.core.resources import NewRun, Run

_POLL_SECONDS = 0.2
_HEARTBEAT_SECONDS = 15.0
_BATCH = 500


def add_routes(app: FastAPI, prefix: str, context: Context) -> None:
    """Add the routes to an application."""
    runs = Runs(context)

    @app.post(f"{prefix}/runs", status_code=202, tags=["runs"])
    def create_run(request: NewRun, principal: Writer) -> Run:
        """Accept a run of a recipe; follow it by its events."""
        return runs.create(principal.project_id, request)

    @app.get(f"{prefix}/runs", tags=["runs"])
    def list_runs(principal: Reader) -> list[Run]:
        """List the runs, newest first."""
        return runs.list(principal.project_id)

    @app.get(f"{prefix}/runs/{{run_id}}", tags=["runs"])
    def show_run(run_id: str, principal: Reader) -> Run:
        """Show a run."""
        return runs.get(principal.project_id, run_id)

    @app.get(f"{prefix}/runs/{{run_id}}/events", tags=["runs"], response_class=StreamingResponse)
    async def stream_run_events(
        run_id: str, principal: Reader, last_event_id: Annotated[int, Header(ge=0)] = 0
    ) -> StreamingResponse:
        """Stream a run's events (Server-Sent Events) until it ends; ``Last-Event-ID`` goes on where one stopped."""
        await asyncio.to_thread(runs.get, principal.project_id, run_id)
        return StreamingResponse(
            run_events(context, run_id, last_event_id),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    @app.post(f"{prefix}/runs/{{run_id}}/cancel", status_code=202, tags=["runs"])
    def cancel_run(run_id: str, principal: Writer) -> Run:
        """Stop a run; it writes a checkpoint first and can be resumed."""
        return runs.cancel(principal.project_id, run_id)

    @app.post(f"{prefix}/runs/{{run_id}}/resume", status_code=202, tags=["runs"])
    def resume_run(run_id: str, principal: Writer) -> Run:
        """Let a failed or cancelled run go on from its last checkpoint."""
        return runs.resume(principal.project_id, run_id)

    @app.get(f"{prefix}/runs/{{run_id}}/report", tags=["runs"], response_class=Response)
    def show_run_report(run_id: str, request: Request, principal: Reader) -> Response:
        """Show a run's report: JSON, or a page if ``Accept`` asks for HTML."""
        if wants_page(request):
            return page(runs.report_page(principal.project_id, run_id))
        return document(runs.report(principal.project_id, run_id))

    @app.get(f"{prefix}/runs/{{run_id}}/log", tags=["runs"], response_class=StreamingResponse)
    def show_run_log(run_id: str, principal: Reader) -> StreamingResponse:
        """Show what the run's process wrote."""
        chunks = runs.log(principal.project_id, run_id)
        return StreamingResponse(chunks, media_type="text/plain; charset=utf-8")


async def run_events(context: Context, run_id: str, after: int) -> AsyncIterator[bytes]:
    """Yield a run's events as Server-Sent Events until it has ended.

    An ending that a resume took back is left out, so that what comes after it can be read.

    Args:
        context: where the events are.
        run_id: the run.
        after: sequence number after which to begin.
    """
    heard = time.monotonic()
    while True:
        batch = await asyncio.to_thread(context.events.read, after, run_id, _BATCH)
        for envelope in batch:
            after = envelope.sequence
            if isinstance(envelope.event, RUN_ENDINGS):
                last = await asyncio.to_thread(context.events.last, run_id)
                if last is not None and last.sequence > after:
                    continue
                yield _server_sent(envelope)
                return
            yield _server_sent(envelope)
        now = time.monotonic()
        if batch:
            heard = now
        elif now - heard > _HEARTBEAT_SECONDS:
            heard = now
            yield b": still here\n\n"
        if len(batch) < _BATCH:
            await asyncio.sleep(_POLL_SECONDS)


def _server_sent(envelope: Envelope) -> bytes:
    tag = str(type(envelope.event).__struct_config__.tag).encode()
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (envelope.sequence, tag, msgspec.json.encode(envelope))
