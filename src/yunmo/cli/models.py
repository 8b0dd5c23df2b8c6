"""``yunmo models`` and ``yunmo evaluate``: what training made."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yunmo.cli.complete import model_versions
from yunmo.cli.output import AsJson, emit, facts, metric, say, size, table, when
from yunmo.cli.place import connect
from yunmo.core.errors import IntegrityError, NotFound
from yunmo.core.files import write_atomic

if TYPE_CHECKING:
    from yunmo.client.client import Client

app = typer.Typer(help="Models: signed bundles in versions.", no_args_is_help=True)

Version = Annotated[
    str,
    typer.Argument(
        metavar="NAME:V", help="A version, or NAME@ALIAS, or NAME for the newest.", autocompletion=model_versions
    ),
]


@app.command("ls")
def ls(as_json: AsJson = False) -> None:
    """List the versions of all models."""
    with connect() as client:
        found = client.models()
    if as_json:
        emit(found)
        return
    rows = [
        (
            f"{each.model}:{each.version}",
            ", ".join(each.aliases),
            _summary(each.summary, 2),
            size(each.size),
            when(each.created_at),
        )
        for each in found
    ]
    table(("model", "aliases", "result", ">size", "made"), rows, empty="No models. Make one with `yunmo train DATA`.")


@app.command("show")
def show(
    reference: Annotated[
        str, typer.Argument(metavar="NAME[:V]", help="A model, or one version of it.", autocompletion=model_versions)
    ],
    bom: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write its bill of materials (CycloneDX, JSON).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show a model version."""
    with connect() as client:
        found = client.model(reference)
        bill = _bill(client, f"{found.model}:{found.version}", required=bom is not None)
    if bom is not None:
        write_atomic(bom, json.dumps(bill, indent=2, ensure_ascii=False).encode() + b"\n")
    if as_json:
        emit(found)
        return
    facts(
        [
            ("model", f"{found.model}:{found.version}"),
            ("aliases", ", ".join(found.aliases) or "none"),
            ("result", _summary(found.summary, 20)),
            ("bundle", found.digest),
            ("size", size(found.size)),
            ("run", found.run_id or "imported"),
            ("made", when(found.created_at)),
            ("materials", _materials(bill)),
        ]
    )
    if bom is not None:
        say(f"Wrote {bom}")


def _bill(client: Client, reference: str, *, required: bool) -> dict[str, Any] | None:
    """Return a version's bill of materials; None if its bundle has none and it is not required."""
    try:
        return client.model_bom(reference)
    except NotFound:
        if required:
            raise
        return None


def _materials(bill: dict[str, Any] | None) -> str:
    if bill is None:
        return "none listed"
    kinds = Counter(part["type"] for part in bill["components"])
    counts = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    return f"CycloneDX {bill['specVersion']}: {counts} (--bom FILE writes it)"


@app.command("verify")
def verify(reference: Version, as_json: AsJson = False) -> None:
    """Check a version's signature and every byte of its bundle; exit status 1 if it is refused."""
    with connect() as client:
        found = client.verify(reference)
    if as_json:
        emit(found)
    if not found.valid:
        raise IntegrityError(found.detail, where=f"{found.model}:{found.version}", remedy="Do not use it: train anew")
    if not as_json:
        say(f"[green]✓[/green] {found.model}:{found.version}: {found.detail}")


@app.command("export")
def export(
    reference: Version,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File to write the bundle to.")],
    as_json: AsJson = False,
) -> None:
    """Write a version's signed bundle to a file."""
    with connect() as client:
        client.export(reference, file)
    if as_json:
        emit({"model": reference, "file": str(file), "size": file.stat().st_size})
    else:
        say(f"Wrote {file} ({size(file.stat().st_size)})")


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A bundle's file, made by `yunmo models export`; or an ONNX file."),
    ],
    name: Annotated[str | None, typer.Option(help="ONNX: the model's name; by default the file's.")] = None,
    fields: Annotated[
        Path | None,
        typer.Option(metavar="FIELDS.yaml", help="ONNX: how its tensors are fields; see docs/import-onnx.md."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take in a bundle, or make one of an ONNX file: the next version of its model.

    A bundle's signature must be one this workspace trusts. An ONNX file is checked, tried and signed.
    """
    from yunmo.cli.progress import transfer

    with connect() as client, transfer(as_json) as progress:
        found = client.import_model(file, name=name, fields=fields, progress=progress)
    if as_json:
        emit(found)
    else:
        say(f"Imported [bold]{found.model}:{found.version}[/bold]")


@app.command("alias")
def alias(
    reference: Version,
    name: Annotated[str, typer.Argument(metavar="ALIAS", help="Such as champion.")],
    as_json: AsJson = False,
) -> None:
    """Let an alias point to a version: NAME@ALIAS then means it."""
    with connect() as client:
        found = client.alias(reference, name)
    if as_json:
        emit(found)
    else:
        say(f"{found.model}@{name} is now {found.model}:{found.version}")


def evaluate(
    reference: Version,
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Data with the right answers: a file or a folder.")],
    as_json: AsJson = False,
) -> None:
    """Measure a model version on data with known answers."""
    from yunmo.cli.progress import transfer
    from yunmo.cli.report import show_metrics

    with connect() as client, transfer(as_json) as progress:
        found = client.evaluate(reference, data, progress=progress)
    if as_json:
        emit(found)
    else:
        show_metrics(found)


def _summary(summary: dict[str, float], most: int) -> str:
    return ", ".join(f"{name} {metric(name, value)}" for name, value in list(summary.items())[:most])
