"""``yunmo jobs``: predictions of whole datasets, which the service carries out by itself."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from yunmo.cli.complete import dataset_versions, endpoint_names
from yunmo.cli.output import AsJson, emit, facts, say, table, when
from yunmo.cli.place import connect

if TYPE_CHECKING:
    from yunmo.client.client import Client
    from yunmo.core.resources import Job

app = typer.Typer(help="Jobs: an endpoint's answers to whole datasets.", no_args_is_help=True)

Endpoint = Annotated[
    str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.", autocompletion=endpoint_names)
]
Id = Annotated[str, typer.Argument(metavar="ID", help="As `yunmo jobs ls ENDPOINT` shows it.")]
Detach = Annotated[bool, typer.Option("--detach", help="Don't wait for it.")]
_POLL_SECONDS = 0.2


@app.command("start")
def start(
    endpoint: Endpoint,
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="NAME[:V]",
            help="The dataset; without version, its newest.",
            autocompletion=dataset_versions,
        ),
    ],
    split: Annotated[str, typer.Option(help="Which of its splits: train, validation or test.")] = "train",
    name: Annotated[str | None, typer.Option(help="Dataset that the answers become. [NAME-answers]")] = None,
    detach: Detach = False,
    as_json: AsJson = False,
) -> int | None:
    """Answer every row of a dataset; the answers become a version of another dataset."""
    with connect() as client:
        return _follow(client, client.start_job(endpoint, dataset, split=split, name=name), detach, as_json)


@app.command("ls")
def ls(endpoint: Endpoint, as_json: AsJson = False) -> None:
    """List an endpoint's jobs, newest first."""
    with connect() as client:
        found = client.jobs(endpoint)
    if as_json:
        emit(found)
        return
    rows = [
        (job.id, f"{job.model}:{job.version}", job.dataset, job.status, f"{job.done:,} of {job.rows:,}", _result(job))
        for job in found
    ]
    headings = ("id", "model", "dataset", "status", "rows", "answers")
    table(headings, rows, empty=f"No jobs. Begin one with `yunmo jobs start {endpoint} DATASET`.")


@app.command("show")
def show(endpoint: Endpoint, job_id: Id, as_json: AsJson = False) -> None:
    """Show a job and how far it is."""
    with connect() as client:
        job = client.job(endpoint, job_id)
    if as_json:
        emit(job)
        return
    facts(
        [
            ("job", job.id),
            ("status", job.status),
            ("model", f"{job.model}:{job.version}"),
            ("dataset", f"{job.dataset}, {job.split}"),
            ("rows", f"{job.done:,} of {job.rows:,}"),
            ("answers", _result(job)),
            ("attempt", job.attempt),
            ("begun", when(job.created_at)),
            ("changed", when(job.updated_at)),
        ]
    )


@app.command("cancel")
def cancel(endpoint: Endpoint, job_id: Id, as_json: AsJson = False) -> None:
    """Stop a job; what is answered is kept, and it can be resumed."""
    with connect() as client:
        job = client.cancel_job(endpoint, job_id)
    if as_json:
        emit(job)
    else:
        say(f"Stopping {job.id}. Resume with: yunmo jobs resume {endpoint} {job.id}")


@app.command("resume")
def resume(endpoint: Endpoint, job_id: Id, detach: Detach = False, as_json: AsJson = False) -> int | None:
    """Let a failed or stopped job go on after the last row that was kept."""
    with connect() as client:
        return _follow(client, client.resume_job(endpoint, job_id), detach, as_json)


def _follow(client: Client, job: Job, detach: bool, as_json: bool) -> int | None:
    """Show a job until it ends (Ctrl-C: stop following; with a service, the job goes on)."""
    from yunmo.cli.progress import counted
    from yunmo.core.errors import from_problem

    with counted("Predicting", as_json or detach) as progress:
        while not detach and job.status in ("queued", "running"):
            progress(job.done, job.rows)
            time.sleep(_POLL_SECONDS)
            job = client.job(job.endpoint, job.id)
    if job.problem is not None and not as_json:
        raise from_problem(job.problem)
    if as_json:
        emit(job)
    elif job.output is not None:
        say(f"[green]✓[/green] {job.done:,} answers are [bold]{job.output}[/bold]")
    else:
        say(f"Job {job.id} is {job.status}. See: yunmo jobs show {job.endpoint} {job.id}")
    return None if detach or job.status == "succeeded" else 1


def _result(job: Job) -> str:
    return str(job.problem.get("detail", "")) if job.problem else job.output or ""
