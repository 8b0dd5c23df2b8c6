"""The management API as one application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from yunmo.control.context import Context
from yunmo.control.rest import datasets, description, endpoints, keys, models, runs
from yunmo.control.rest.access import check_routes
from yunmo.control.rest.problems import add_problems
from yunmo.control.services.keys import Keys

PREFIX = "/api/v1"


def create_app(context: Context) -> FastAPI:
    """Return the management API over an open workspace.

    When it starts (its lifespan), it registers the workspace's key and publishes a snapshot.

    Raises:
        InternalError: a route names no scope.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await asyncio.to_thread(Keys(context).start)
        yield

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    add_problems(app, max_body=context.settings.max_body)
    for noun in (datasets, runs, models, endpoints, keys):
        noun.add_routes(app, PREFIX, context)
    description.add_routes(app, context)
    check_routes(app)
    return app
