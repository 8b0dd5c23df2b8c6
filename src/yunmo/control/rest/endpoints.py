"""Routes of endpoints; their ``predict`` and ``schema`` are the data workers'."""

from __future__ import annotations

from fastapi import FastAPI

from yunmo.control.context import Context
from yunmo.control.rest.access import Reader, Writer
from yunmo.control.services.endpoints import Endpoints
from yunmo.core.resources import Endpoint, NewDeployment


def add_routes(app: FastAPI, prefix: str, context: Context) -> None:
    """Add the routes to an application."""
    endpoints = Endpoints(context)

    @app.get(f"{prefix}/endpoints", tags=["endpoints"])
    def list_endpoints(principal: Reader) -> list[Endpoint]:
        """List the endpoints."""
        return endpoints.list(principal.project_id)

    @app.get(f"{prefix}/endpoints/{{endpoint}}", tags=["endpoints"])
    def show_endpoint(endpoint: str, principal: Reader) -> Endpoint:
        """Show an endpoint."""
        return endpoints.get(principal.project_id, endpoint)

    @app.put(f"{prefix}/endpoints/{{endpoint}}", tags=["endpoints"])
    def deploy_endpoint(endpoint: str, request: NewDeployment, principal: Writer) -> Endpoint:
        """Send an endpoint's traffic to a model version; answers when every worker does so, or changes nothing."""
        return endpoints.deploy(principal.project_id, endpoint, request)

    @app.post(f"{prefix}/endpoints/{{endpoint}}/rollback", tags=["endpoints"])
    def roll_back_endpoint(endpoint: str, principal: Writer) -> Endpoint:
        """Send an endpoint's traffic back to the version before."""
        return endpoints.rollback(principal.project_id, endpoint)

    @app.delete(f"{prefix}/endpoints/{{endpoint}}", status_code=204, tags=["endpoints"])
    def delete_endpoint(endpoint: str, principal: Writer) -> None:
        """Take an endpoint away; the model stays."""
        endpoints.delete(principal.project_id, endpoint)
