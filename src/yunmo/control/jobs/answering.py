"""Answering every row of a data file with a signed bundle: the step of a job's child process. No torch.

The answers grow in a file that is resumable: killed or cancelled, the next attempt goes on after the last portion kept.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yunmo.control.services.jobs import ANSWERS
from yunmo.core.ahead import in_order
from yunmo.core.errors import BodyTooLarge, Cancelled, DataError, InvalidInput, NotFound
from yunmo.core.events import AnyEvent, JobProgress
from yunmo.core.fields import TensorOutput
from yunmo.core.schema import Spec

if TYPE_CHECKING:
    from yunmo.data.sources.base import Source
    from yunmo.inference.predictor import Predictor

_ROWS = 64
"""Rows that are encoded and answered at a time by one thread."""
_TELL_SECONDS = 0.25

Columns = list[list[Any]]


class Order(Spec, frozen=True):
    """What a job's child is to do; the runner writes it into the job's folder."""

    bundle: str
    """Its folder."""
    digest: str
    """Of the bundle."""
    public_key: str
    """PEM of the key that must have signed it."""
    data: str
    """Path of the data file."""
    data_digest: str
    cores: int
    max_pixels: int


@dataclass(frozen=True)
class Answering:
    """A job's folder and order, with what its step tells and asks."""

    folder: Path
    order: Order
    emit: Callable[[AnyEvent], None]
    cancelled: Callable[[], bool]

    def answer(self) -> dict[str, Any]:
        """Answer every row that is not answered yet, and give the file of the answers its name.

        Raises:
            NotFound: the data is gone.
            DataError: the data cannot be read, lacks a column, or has a value that does not fit; names file and row.
            BundleError: the bundle cannot be used.
            Cancelled: someone stopped it; what is answered is kept.
            StorageFull: no space left; what is answered is kept.
        """
        from yunmo.data.limits import Limits
        from yunmo.data.sources.open import open_source
        from yunmo.inference.predictor import Predictor

        order, path = self.order, Path(self.order.data)
        if not path.exists():
            raise NotFound("the data is gone", where=path.name, remedy="Add it again")
        pixels = order.max_pixels
        predictor = Predictor.open(Path(order.bundle), public_key_pem=order.public_key, max_pixels=pixels)
        expected = {field.column for field in predictor.fields.values()}
        source = open_source(path, limits=Limits(pixels=pixels), expected=expected)
        try:
            return {"rows": self._answer(predictor, source)}
        finally:
            source.close()
            predictor.close()

    def _answer(self, predictor: Predictor, source: Source) -> int:
        from yunmo.data.answers import AnswersFile, cells
        from yunmo.inference.cells import answer_names

        target = self.folder / ANSWERS
        if target.exists():
            # An attempt before this one ended right after it.
            return len(source)
        answers = _Answers(predictor, source)
        shown = cells(source)
        named = answer_names(predictor.categories, predictor.labels)
        kept = {name: values for name, values in shown.items() if name not in named}
        about = {"bundle": self.order.digest, "data": self.order.data_digest}
        told = 0.0
        with AnswersFile(target, [*kept, *named], about) as file:
            for start, columns in answers.after(file.rows, self.order.cores):
                stop = start + len(columns[0])
                file.add(zip(*(values[start:stop] for values in kept.values()), *columns, strict=True))
                if self.cancelled():
                    raise Cancelled("someone stopped the job")
                if time.monotonic() - told > _TELL_SECONDS:
                    told = time.monotonic()
                    self.emit(JobProgress(done=file.kept))
            file.finish()
        return len(source)


class _Answers:
    """The answers to a source's rows, portion by portion.

    Args:
        predictor: the model.
        source: the data.

    Raises:
        DataError: a column is missing.
    """

    def __init__(self, predictor: Predictor, source: Source) -> None:
        from yunmo.data.infer import check_column

        for field in predictor.fields.values():
            check_column(source, field.column)
        self._predictor, self._source = predictor, source
        outputs = predictor.manifest.outputs
        self._plain = frozenset(output.name for output in outputs if isinstance(output, TensorOutput))
        self._values: dict[str, Any] = {name: source.column(field.column) for name, field in predictor.fields.items()}

    def after(self, first: int, cores: int) -> Iterator[tuple[int, Columns]]:
        """Yield the columns of answers from a row on, with the row each portion begins at, in order.

        ONNX Runtime and the decoders of pictures leave the interpreter to others, so that as many threads as cores
        are as good as processes, with one copy of the model.
        """
        starts = range(first, len(self._source), _ROWS)
        return in_order(self._portion, starts, threads=cores, ahead=3 * cores)

    def _portion(self, start: int) -> Columns:
        from yunmo.inference.cells import answer_columns

        stop = min(start + _ROWS, len(self._source))
        columns = {name: values[start:stop] for name, values in self._values.items()}
        try:
            tensors = self._predictor.encode_columns(columns, stop - start)
        except (InvalidInput, BodyTooLarge) as error:
            raise self._located(error, start) from None
        predictor = self._predictor
        return answer_columns(predictor.categories, predictor.run(tensors), self._plain, predictor.labels)

    def _located(self, error: InvalidInput | BodyTooLarge, start: int) -> DataError:
        """Name the file and the row in it, where the predictor counts from the portion's first."""
        row, _, field = (error.where or "").removeprefix("row ").partition(", ")
        where = self._source.where(start + int(row)) if row.isdecimal() else self._source.path.name
        return DataError(error.message, where=f"{where}, {field}" if field else where, remedy=error.remedy)


STEPS: dict[str, Callable[[Answering], dict[str, Any]]] = {"answer": Answering.answer}
"""What the child of a job can do."""
