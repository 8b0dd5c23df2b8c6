"""Routes of endpoints; their ``predict`` and ``schema`` are the data workers'."""

from __future__ import annotations

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict

from yunmo.control.context import Context
from yunmo.control.rest.access import Reader, Writer
from yunmo.control.services.endpoints import Endpoints
from yunmo.control.services.jobs import Jobs
from yunmo.core.resources import Endpoint, Job, NewDeployment, NewJob
from yunmo.core.snapshot import Sticky


class EndpointSettings(BaseModel):
    """Settings of an endpoint. A key that is left out stays as it is; null resets it.

    It is pydantic's, unlike other requests: what was left out must be told from what is null.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    concurrency: int | None = None
    """Requests in progress, over all data workers."""
    queue: int | None = None
    """Rows in progress, waiting or running, over all data workers."""
    timeout: float | None = None
    """Seconds that a request may take."""
    sticky: Sticky | None = None
    """What decides whether the canary answers a request that does not say: chance, or its key."""


def add_routes(app: FastAPI, prefix: str, context: Context) -> None:
    """Add the routes to an application."""
    endpoints = Endpoints(context)
    _add_job_routes(app, f"{prefix}/endpoints/{{endpoint}}/jobs", Jobs(context))

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
        """Give a model version an endpoint's traffic, a share of it (``canary``), or a copy of it (``shadow``).

        Answers when every worker does so, or changes nothing.
        """
        return endpoints.deploy(principal.project_id, endpoint, request)

    @app.patch(f"{prefix}/endpoints/{{endpoint}}", tags=["endpoints"])
    def change_endpoint(endpoint: str, request: EndpointSettings, principal: Writer) -> Endpoint:
        """Change an endpoint's limits and stickiness."""
        return endpoints.change(principal.project_id, endpoint, request.model_dump(exclude_unset=True))

    @app.post(f"{prefix}/endpoints/{{endpoint}}/rollback", tags=["endpoints"])
    def roll_back_endpoint(endpoint: str, principal: Writer) -> Endpoint:
        """Take canary and shadow away; without one, send the traffic back to the version before."""
        return endpoints.rollback(principal.project_id, endpoint)

    @app.delete(f"{prefix}/endpoints/{{endpoint}}", status_code=204, tags=["endpoints"])
    def delete_endpoint(endpoint: str, principal: Writer) -> None:
        """Take an endpoint away; the model stays."""
        endpoints.delete(principal.project_id, endpoint)


def _add_job_routes(app: FastAPI, path: str, jobs: Jobs) -> None:
    @app.post(path, status_code=202, tags=["endpoints"])
    def create_job(endpoint: str, request: NewJob, principal: Writer) -> Job:
        """Answer every row of a dataset; the answers become a dataset version. It needs the scope ``predict`` too."""
        return jobs.create(principal, endpoint, request)

    @app.get(path, tags=["endpoints"])
    def list_jobs(endpoint: str, principal: Reader) -> list[Job]:
        """List an endpoint's jobs, newest first."""
        return jobs.list(principal.project_id, endpoint)

    @app.get(f"{path}/{{job_id}}", tags=["endpoints"])
    def show_job(endpoint: str, job_id: str, principal: Reader) -> Job:
        """Show a job and how far it is."""
        return jobs.get(principal.project_id, endpoint, job_id)

    @app.post(f"{path}/{{job_id}}/cancel", status_code=202, tags=["endpoints"])
    def cancel_job(endpoint: str, job_id: str, principal: Writer) -> Job:
        """Stop a job; what is answered is kept, and it can be resumed."""
        return jobs.cancel(principal.project_id, endpoint, job_id)

    @app.post(f"{path}/{{job_id}}/resume", status_code=202, tags=["endpoints"])
    def resume_job(endpoint: str, job_id: str, principal: Writer) -> Job:
        """Let a failed or cancelled job go on after the last row that was kept."""
        return jobs.resume(principal.project_id, endpoint, job_id)
