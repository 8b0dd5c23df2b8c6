"""``yunmo predict`` on a file of many rows: asked portion by portion, answered into a table, whole or resumable."""

from __future__ import annotations

import csv
import itertools
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yunmo.core.ahead import in_order
from yunmo.core.errors import DataError, InvalidInput, TooManyRequests, Unavailable
from yunmo.core.files import file_digest

if TYPE_CHECKING:
    from yunmo.client.client import Client
    from yunmo.data.fields.base import Values
    from yunmo.data.sources.base import Source

ROWS = 200
"""Rows in one request, at most."""
BYTES = 4 * 2**20
"""Bytes of pictures in one request, about."""
ABREAST = 4
"""Requests on their way at a time: while one is answered, the next are encoded and sent."""
PATIENCE = 60.0
"""Seconds to try again while the endpoint has no room."""

_ROW = re.compile(r"row (\d+)(?:, (.+))?", re.DOTALL)


def answer_to_file(client: Client, endpoint: str, path: Path, target: Path, *, quiet: bool) -> int:
    """Write the rows of a file with their answers to a CSV, and return how many there are.

    Broken off, the same command goes on after the last portion that was kept, as long as the data and the endpoint's
    live version are the same.

    Raises:
        DataError: the data cannot be read, lacks a column, or has a value that does not fit; names file and row.
        StorageFull: no space left; what is answered is kept beside the target.
    """
    from yunmo.cli.progress import counted
    from yunmo.data.answers import AnswersFile, cells
    from yunmo.inference.cells import answer_row

    with _asked(client, endpoint, path) as asked, counted("Predicting", quiet) as progress:
        total = len(asked.source)
        names, separators = _answer_names(asked.schema), _separators(asked.schema)
        shown = cells(asked.source)
        kept = {name: values for name, values in shown.items() if name not in names}
        about = {"data": f"sha256:{file_digest(asked.packed)}", "endpoint": endpoint, "model": asked.model}
        with AnswersFile(target.resolve(), [*kept, *names], about) as file:
            for start, answers in asked.answers(client, endpoint, file.rows):
                rows = [[answer_row(answer, separators).get(name) for name in names] for answer in answers]
                cut = slice(start, start + len(rows))
                file.add((*had, *row) for *had, row in zip(*(kept[name][cut] for name in kept), rows, strict=True))
                progress(file.rows, total)
            file.finish()
    return total


def answer_to_stdout(client: Client, endpoint: str, path: Path, as_json: bool) -> None:
    """Write NDJSON for machines, else a CSV of the answers."""
    from yunmo.inference.cells import answer_row

    writer: Any = None
    with _asked(client, endpoint, path) as asked:
        separators = _separators(asked.schema)
        for answer in itertools.chain.from_iterable(answers for _, answers in asked.answers(client, endpoint, 0)):
            if as_json:
                sys.stdout.write(json.dumps(answer) + "\n")
                continue
            row = answer_row(answer, separators)
            if writer is None:
                writer = csv.DictWriter(sys.stdout, list(row), lineterminator="\n")
                writer.writeheader()
            writer.writerow(row)


@dataclass(frozen=True)
class _Asked:
    """A file that an endpoint is asked about, row by row; it is read as in training, so that a cell means the same.

    Columns that are no inputs are not sent.
    """

    path: Path
    packed: Path
    """The file itself, or the archive of a folder."""
    source: Source
    schema: dict[str, Any]
    values: dict[str, Values]
    """By input."""

    @property
    def model(self) -> str:
        return f"{self.schema['model']}:{self.schema['version']}"

    def answers(self, client: Client, endpoint: str, first: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        """Yield the answers to portions of rows, in order, with the row each begins at."""

        def ask(portion: tuple[int, list[dict[str, Any]]]) -> list[dict[str, Any]]:
            return self._ask(client, endpoint, *portion)

        for (start, _), answers in in_order(ask, self._portions(first), threads=ABREAST, ahead=ABREAST):
            yield start, answers

    def _portions(self, first: int) -> Iterator[tuple[int, list[dict[str, Any]]]]:
        rows: list[dict[str, Any]] = []
        start, size = first, 0
        for row in range(first, len(self.source)):
            asked = {name: self._value(name, row) for name in self.values}
            more = sum(len(value) for value in asked.values() if isinstance(value, bytes))
            if rows and (len(rows) == ROWS or size + more > BYTES):
                yield start, rows
                start, rows, size = row, [], 0
            rows.append(asked)
            size += more
        if rows:
            yield start, rows

    def _value(self, name: str, row: int) -> Any:
        """Return what a cell stands for: itself, or the picture that it is or that it names beside the table."""
        from yunmo.data.fields.base import plain
        from yunmo.data.sources.base import Picture
        from yunmo.data.sources.pack import picture_beside

        cell = self.values[name][row]
        if isinstance(cell, Picture):
            return cell.read()
        form = self.schema["input"]["properties"][name]
        if not isinstance(cell, str) or not any(
            each.get("contentEncoding") == "base64" for each in form.get("anyOf", [form])
        ):
            return plain(cell)
        picture = picture_beside(self.path, cell)
        if picture is None:
            raise DataError(
                f"names a picture that is not there: {cell}",
                where=f"{self.source.where(row)}, {name}",
                remedy="Put it beside the table or below",
            )
        return picture.read_bytes()

    def _ask(self, client: Client, endpoint: str, start: int, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Ask about a portion; while there is no room, wait and ask again."""
        end, pause = time.monotonic() + PATIENCE, 0.1
        while True:
            try:
                return client.predict(endpoint, rows)
            except (TooManyRequests, Unavailable):
                if time.monotonic() + pause > end:
                    raise
                time.sleep(pause)
                pause = min(2.0, 2 * pause)
            except InvalidInput as error:
                found = _ROW.fullmatch(error.where or "")
                if found is None:
                    raise
                where = ", ".join(filter(None, (self.source.where(start + int(found[1])), found[2])))
                raise DataError(error.message, where=where, remedy=error.remedy) from None


@contextmanager
def _asked(client: Client, endpoint: str, path: Path) -> Iterator[_Asked]:
    """Open a file or folder, and ask the endpoint what it needs."""
    from yunmo.data.sources.open import open_source
    from yunmo.data.sources.pack import pack

    schema = client.schema(endpoint)
    inputs: dict[str, Any] = schema["input"]["properties"]
    with tempfile.TemporaryDirectory(prefix="yunmo-") as folder:
        packed = pack(path, Path(folder) / f"{path.resolve().name}.zip") if path.is_dir() else path
        source = open_source(packed, expected=inputs)
        try:
            for name in inputs:
                if name not in source.names:
                    raise DataError(
                        f"has no column {name!r}", where=str(path), remedy=f"{endpoint!r} needs: {', '.join(inputs)}"
                    )
            yield _Asked(path, packed, source, schema, {name: source.column(name) for name in inputs})
        finally:
            source.close()


def _separators(schema: dict[str, Any]) -> dict[str, str]:
    """Return what joins the labels of each output that has several at once."""
    from yunmo.inference.schema import SEPARATOR

    outputs: dict[str, Any] = schema["output"]["properties"]
    values = {name: form["properties"]["value"] for name, form in outputs.items()}
    return {name: value[SEPARATOR] for name, value in values.items() if SEPARATOR in value}


def _answer_names(schema: dict[str, Any]) -> list[str]:
    from yunmo.inference.cells import answer_names

    outputs: dict[str, Any] = schema["output"]["properties"]
    return answer_names({name: () if "probability" in form["properties"] else None for name, form in outputs.items()})
