"""``yunmo predict``: an endpoint's answers on files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yunmo.cli.complete import endpoint_names
from yunmo.cli.output import AsJson, emit, grid, number, say, stdout
from yunmo.cli.place import connect
from yunmo.cli.predict_rows import answer_to_file, answer_to_stdout
from yunmo.core.errors import DataError, InvalidInput

if TYPE_CHECKING:
    from yunmo.client.client import Client

PICTURES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
}


def predict(
    endpoint: Annotated[
        str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.", autocompletion=endpoint_names)
    ],
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...",
            help="Pictures, JSON files (a row or a list of rows), or one file of many rows "
            "(CSV, JSON Lines, Parquet, npz, zip, tar) or folder.",
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Write the rows with their answers to this CSV. Broken off, the same command goes on.",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask an endpoint about pictures, rows in JSON, or every row of a file of data."""
    tables = [file for file in files if not _is_single(file)]
    if tables and len(files) > 1:
        raise InvalidInput("a file of many rows is predicted alone", where=str(tables[0]), remedy="Give one file")
    if output is not None and not tables:
        raise InvalidInput(
            "is for the answers to a file of many rows", where="--output", remedy="Use --json for other files"
        )
    for file in files:
        if not file.exists():
            raise InvalidInput("no such file", where=str(file))
    with connect() as client:
        if tables and output is not None:
            count = answer_to_file(client, endpoint, tables[0], output, quiet=as_json)
            if as_json:
                emit({"rows": count, "file": str(output)})
            else:
                say(f"Wrote {count:,} answers to {output}")
        elif tables:
            answer_to_stdout(client, endpoint, tables[0], as_json)
        else:
            _files(client, endpoint, files, as_json)


def _is_single(file: Path) -> bool:
    """Say whether a file is one question (a picture) or a JSON document of some, not a source of data."""
    return not file.is_dir() and (file.suffix.lower() in PICTURES or file.suffix.lower() == ".json")


def _files(client: Client, endpoint: str, files: list[Path], as_json: bool) -> None:
    answers: list[dict[str, Any]] = []
    for file in files:
        answers += [{"file": str(file), **answer} for answer in _file(client, endpoint, file)]
    if as_json:
        emit(answers)
        return
    shown = grid(("file", "output", "answer", "probabilities"))
    for answer in answers:
        file_name = answer.pop("file")
        for name, value in answer.items():
            likely = sorted(value.get("probabilities", {}).items(), key=lambda pair: -pair[1])[:5]
            shown.add_row(
                file_name, name, _value(value["value"]), "  ".join(f"{key} {share:.1%}" for key, share in likely)
            )
    stdout().print(shown)


def _file(client: Client, endpoint: str, file: Path) -> list[dict[str, Any]]:
    """Predict a picture, or the rows of a JSON file."""
    if media_type := PICTURES.get(file.suffix.lower()):
        return client.predict_raw(endpoint, file.read_bytes(), media_type)
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"not valid JSON: {error}", where=str(file)) from None
    rows = content if isinstance(content, list) else [content]
    if not all(isinstance(row, dict) for row in rows):
        raise DataError(
            "rows are objects of fields", where=str(file), remedy='Write {"field": value} or a list of such objects'
        )
    return client.predict(endpoint, rows)


def _value(value: Any) -> str:
    return value if isinstance(value, str) else number(value)
