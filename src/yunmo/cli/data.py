"""``yunmo data``: datasets and their versions."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yunmo.cli.complete import dataset_versions
from yunmo.cli.output import AsJson, emit, facts, number, say, size, table, when
from yunmo.cli.place import connect

if TYPE_CHECKING:
    from yunmo.core.resources import Dataset

app = typer.Typer(help="Datasets: named data with versions that never change.", no_args_is_help=True)

Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME[:V]", help="The dataset; without version, its newest.", autocompletion=dataset_versions
    ),
]
_SHOWN = 3
"""Values of a list that are shown."""


@app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the dataset.")],
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="CSV, JSON Lines, Parquet, npz or npy file; zip or tar; or a folder.")
    ],
    test: Annotated[Path | None, typer.Option(help="Data of the test split.")] = None,
    validation: Annotated[Path | None, typer.Option(help="Data of the validation split.")] = None,
    as_json: AsJson = False,
) -> None:
    """Upload data as a new version of a dataset."""
    from yunmo.cli.progress import transfer

    given = {"train": path, "validation": validation, "test": test}
    splits = {split: file for split, file in given.items() if file is not None}
    with connect() as client, transfer(as_json) as progress:
        added = client.add_dataset(name, splits, progress=progress)
    if as_json:
        emit(added)
    else:
        rows = ", ".join(f"{count:,} {split}" for split, count in added.rows.items())
        say(f"Added [bold]{added.name}:{added.version}[/bold] ({added.kind}; rows: {rows})")


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the versions of all datasets."""
    with connect() as client:
        found = client.datasets()
    if as_json:
        emit(found)
        return
    rows = [
        (f"{each.name}:{each.version}", each.kind, _rows(each), size(_bytes(each)), when(each.created_at))
        for each in found
    ]
    table(
        ("dataset", "kind", "rows", ">size", "added"),
        rows,
        empty="No datasets. Add one with `yunmo data add NAME PATH`.",
    )


@app.command("show")
def show(reference: Name, as_json: AsJson = False) -> None:
    """Show a dataset version: its files by split, and its fields."""
    with connect() as client:
        found = client.dataset(reference)
    if as_json:
        emit(found)
        return
    facts(
        [
            ("dataset", f"{found.name}:{found.version}"),
            ("kind", found.kind),
            ("rows", _rows(found)),
            ("added", when(found.created_at)),
        ]
    )
    splits = [(split, file.filename, size(file.size), file.digest) for split, file in found.splits.items()]
    table(("split", "file", ">size", "SHA-256"), splits, empty="No files.")
    fields = [(each.get("name"), each.get("type"), each.get("role", "")) for each in found.schema]
    table(("field", "type", "role"), fields, empty="No fields are known.")


@app.command("profile")
def profile(reference: Name, as_json: AsJson = False) -> None:
    """Show what is known of each field of a dataset: missing values, range, most frequent values."""
    with connect() as client:
        found = client.dataset(reference)
    if as_json:
        emit({"dataset": f"{found.name}:{found.version}", "rows": found.rows, "fields": found.schema})
        return
    known: list[str] = []
    for each in found.schema:
        known += [key for key in each if key not in known]
    rows = [[_brief(each.get(key)) for key in known] for each in found.schema]
    table(known or ["field"], rows, empty="No fields are known.")


def _brief(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict) and value.keys() == {"value", "count"}:
        return f"{_brief(value['value'])} ({value['count']:,})"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_brief(part)}" for key, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(_brief, value[:_SHOWN])) + (", …" if len(value) > _SHOWN else "")
    return "" if value is None else str(value)


def _rows(found: Dataset) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in found.rows.items())


def _bytes(found: Dataset) -> int:
    return sum(file.size for file in found.splits.values())
