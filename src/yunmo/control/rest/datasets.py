"""Routes of uploads and datasets."""

from __future__ import annotations

from fastapi import FastAPI, Request

from yunmo.control.context import Context
from yunmo.control.rest.access import Reader, Writer
from yunmo.control.services.datasets import Datasets
from yunmo.core.resources import Dataset, NewDataset, Upload

_BYTES = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def add_routes(app: FastAPI, prefix: str, context: Context) -> None:
    """Add the routes to an application."""
    datasets = Datasets(context)

    @app.post(f"{prefix}/uploads", status_code=201, tags=["datasets"], openapi_extra=_BYTES)
    async def upload_file(request: Request, principal: Writer) -> Upload:
        """Send a file: the raw body. It is known by its SHA-256 from then on."""
        return await datasets.upload(principal.project_id, request.stream())

    @app.post(f"{prefix}/datasets", status_code=201, tags=["datasets"])
    def add_dataset(request: NewDataset, principal: Writer) -> Dataset:
        """Make uploaded files a version of a dataset; the same files are the same version."""
        return datasets.create(principal.project_id, request)

    @app.get(f"{prefix}/datasets", tags=["datasets"])
    def list_datasets(principal: Reader) -> list[Dataset]:
        """List the versions of all datasets."""
        return datasets.list(principal.project_id)

    @app.get(f"{prefix}/datasets/{{name}}", tags=["datasets"])
    def show_dataset(name: str, principal: Reader) -> Dataset:
        """Show the newest version of a dataset."""
        return datasets.get(principal.project_id, name)

    @app.get(f"{prefix}/datasets/{{name}}/{{version}}", tags=["datasets"])
    def show_dataset_version(name: str, version: int, principal: Reader) -> Dataset:
        """Show a version of a dataset."""
        return datasets.get(principal.project_id, name, version)
