"""``yunmo predict``: an endpoint's answers on files."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from yunmo.cli.output import AsJson, emit, grid, number, say, stdout
from yunmo.cli.place import connect
from yunmo.core.errors import DataError, InvalidInput
from yunmo.core.files import open_atomic
from yunmo.data.sources.pack import picture_beside

if TYPE_CHECKING:
    from yunmo.client.client import Client

BATCH = 200
"""Rows of a table in one request."""

PICTURES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".gif": "image/gif",
}


def predict(
    endpoint: Annotated[str, typer.Argument(metavar="ENDPOINT", help="Name of the endpoint.")],
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Pictures, JSON files (a row or a list of rows), or a CSV.")
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the rows of a CSV with their answers to this CSV.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ask an endpoint about pictures, rows in JSON, or every row of a CSV."""
    tables = [file for file in files if file.suffix.lower() in (".csv", ".tsv")]
    if tables and len(files) > 1:
        raise InvalidInput("a CSV is predicted alone", where=str(tables[0]), remedy="Give one file")
    if output is not None and not tables:
        raise InvalidInput("is for the answers to a CSV", where="--output", remedy="Use --json for other files")
    for file in files:
        if not file.is_file():
            raise InvalidInput("no such file", where=str(file))
    with connect() as client:
        if tables and output is not None:
            count = _table_to_file(client, endpoint, tables[0], output)
            if as_json:
                emit({"rows": count, "file": str(output)})
            else:
                say(f"Wrote {count:,} answers to {output}")
        elif tables:
            _table_to_stdout(client, endpoint, tables[0], as_json)
        else:
            _files(client, endpoint, files, as_json)


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
    if file.suffix.lower() != ".json":
        known = ", ".join([*PICTURES, ".json", ".csv"])
        raise InvalidInput("a kind of file that cannot be predicted", where=str(file), remedy=f"Known: {known}")
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


# --- tables ---


def _table_to_file(client: Client, endpoint: str, source: Path, target: Path) -> int:
    count = 0
    with open_atomic(target.resolve()) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer: Any = None
        for row, answer in _answers(client, endpoint, source):
            cells = {**row, **_flat(answer)}
            if writer is None:
                writer = csv.DictWriter(text, list(cells))
                writer.writeheader()
            writer.writerow(cells)
            count += 1
        text.detach()  # writes out what it holds, and leaves the file open
    return count


def _table_to_stdout(client: Client, endpoint: str, source: Path, as_json: bool) -> None:
    """Write NDJSON for machines, else a CSV of the answers."""
    writer: Any = None
    for _, answer in _answers(client, endpoint, source):
        if as_json:
            sys.stdout.write(json.dumps(answer) + "\n")
            continue
        cells = _flat(answer)
        if writer is None:
            writer = csv.DictWriter(sys.stdout, list(cells), lineterminator="\n")
            writer.writeheader()
        writer.writerow(cells)


def _answers(client: Client, endpoint: str, path: Path) -> Iterator[tuple[dict[str, str], dict[str, Any]]]:
    """Yield every row of a CSV with its prediction, a batch to a request; columns that are no inputs are not sent.

    The table is read as in training, so that a cell means the same.
    """
    from yunmo.data.sources.open import open_source

    inputs: dict[str, dict[str, Any]] = client.schema(endpoint)["input"]["properties"]
    source = open_source(path, expected=inputs)
    for name in inputs:
        if name not in source.names:
            raise DataError(
                f"has no column {name!r}", where=str(path), remedy=f"{endpoint!r} needs: {', '.join(inputs)}"
            )
    columns = {name: source.column(name) for name in source.names}
    rows = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        values = [{name: _value_of(row[name], schema, path) for name, schema in inputs.items()} for row in batch]
        for row, answer in zip(batch, client.predict(endpoint, values), strict=True):
            yield {name: cell or "" for name, cell in row.items()}, answer


def _value_of(cell: str | None, schema: dict[str, Any], table: Path) -> str | bytes | None:
    """Return what a cell stands for: itself, or the picture that it names beside the table."""
    forms = schema.get("anyOf", [schema])
    if cell is None or not any(form.get("contentEncoding") == "base64" for form in forms):
        return cell
    picture = picture_beside(table, cell)
    if picture is None:
        raise DataError(
            f"names a picture that is not there: {cell}", where=str(table), remedy="Put it beside the table or below"
        )
    return picture.read_bytes()


def _flat(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a prediction as cells: each output's value, and its probability where it has one."""
    cells = {}
    for name, value in answer.items():
        cells[f"predicted_{name}"] = value["value"]
        if "probability" in value:
            cells[f"{name}_probability"] = round(value["probability"], 6)
    return cells


def _value(value: Any) -> str:
    return value if isinstance(value, str) else number(value)
