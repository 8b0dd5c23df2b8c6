"""Advice before a training: ``python -m yunmo.control.jobs.advise``, a process of its own.

It reads an `Order`; its result is an `Advice`. The data is prepared as a training would, but of a sample, in a fork;
meanwhile torch is imported. Then each network is tried in a fork of its own, so that memory is counted for each alone,
and one that takes too long is ended. Nothing is used that a fork could not take over: this process runs no tensors.
"""

from __future__ import annotations

import os
import shlex
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import psutil

from yunmo.control.jobs.extras import missing_extra
from yunmo.control.jobs.forked import Forked, Say
from yunmo.control.jobs.order import carry_out
from yunmo.core.advice import Advice, Candidate, Yardstick
from yunmo.core.encoders import BagEncoder
from yunmo.core.errors import DataError, DeadlineExceeded, InternalError, YunmoError
from yunmo.core.fields import CategoryOutput, TextField
from yunmo.core.recipe import Recipe, TrainSpec, recipe_from
from yunmo.core.schema import Spec

if TYPE_CHECKING:
    from yunmo.data.prepared import Prepared
    from yunmo.training.candidates import Choice
    from yunmo.training.estimate import Surroundings
    from yunmo.training.findings import Cost, Learned

_LATE = 3
"""Seconds after its time when this process ends whatever it does: whoever started it may be gone."""
_ENDING = 1.0
"""Seconds kept for putting the answer together and showing it."""
_EARLY = 0.3
"""Seconds in which most mistakes in small data are found; only then torch is imported, which takes longer."""
_LINEAR_SHARE, _LINEAR_SECONDS = 0.25, 4.0
_FIRST_SHARE = 0.55
"""Share of the time that is left for the network that training takes by itself."""
_LEAST = 1.0
"""Seconds without which no probe is begun."""
_CLOSING = 0.3
"""Seconds of a probe's share in which it is to have ended by itself."""


class Order(Spec, frozen=True):
    """What is asked."""

    recipe: dict[str, Any]
    target: str | None
    splits: dict[str, str]
    """Path of each split's file or folder."""
    embeddings: dict[str, str]
    """Path of the file of vectors of each text that has one."""
    command: tuple[str, ...]
    """The command line that would train, to which settings are added."""
    folder: str
    """For whatever is written; whoever asks removes it."""
    seconds: float
    """That the answer may take."""
    cores: int
    max_pixels: int


class _Ready(Spec, frozen=True):
    """What preparing a sample told."""

    whole: dict[str, int]
    """Rows of each split."""
    reading: float
    """Seconds of reading all of them."""
    encoding: float
    """Seconds of encoding the sample."""
    grown: int
    """Bytes that reading all takes."""
    read: float
    """Share of the training rows that were read."""


def main() -> None:
    """Carry out the order on stdin; then end at once, since taking down torch in order takes a while."""
    carry_out(Order, work)
    os._exit(0)


def work(order: Order) -> dict[str, Any]:
    """Return the advice.

    Raises:
        MissingExtra: what training needs is not installed.
        YunmoError: as `Advising.advice`.
    """
    signal.alarm(int(order.seconds) + _LATE)
    try:
        advice: dict[str, Any] = msgspec.to_builtins(Advising(order).advice())
    except ImportError as error:
        raise missing_extra(error, "advising") or error from error
    return advice


@dataclass(frozen=True, slots=True)
class _Linear:
    """What trying the linear model told."""

    probes: list[Learned]
    grown: int | None
    """Bytes that it added to a process."""
    note: str | None


@dataclass(frozen=True, slots=True)
class _Tried:
    """What a probe of a network found, and why it found nothing."""

    cost: Cost | None
    probes: list[Learned]
    note: str | None


class Advising:
    """One advice.

    Args:
        order: what is asked.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._began = time.monotonic()
        self._until = self._began + order.seconds - _ENDING
        self._asked = recipe_from(order.recipe)
        self._folder = Path(order.folder)
        self._samples: dict[bytes, Prepared] = {}

    def advice(self) -> Advice:
        """Return the advice.

        Raises:
            DataError: data that no model can be trained on.
            RecipeError: a recipe that does not fit it.
            DeadlineExceeded: reading it takes longer than the advice may.
        """
        # In this process, so that the fork has it, and the next one, too.
        import yunmo.data.prepare  # noqa: F401

        preparing = self._prepare(self._asked, "first")
        try:
            preparing.look(_EARLY)
            starting = self._import()
        except BaseException:
            preparing.kill()
            raise
        data, ready = self._opened(preparing, "first")
        from yunmo.training.candidates import choices
        from yunmo.training.estimate import recommend

        found = choices(self._asked, data.recipe, data.statistics, rows=ready.whole["train"], cores=self._order.cores)
        self._samples[_kind(found[0].recipe)] = data
        # The one that training takes by itself may use all the time, if that is what its first steps take.
        tried = [self._try(found[0], _FIRST_SHARE * self._left(), ready, None, until=self._until)]
        linear = self._linear(data)
        tried += self._others(found[1:], ready, tried[0].cost)
        around = self._around(data, ready, starting, linear)
        candidates = [self._candidate(choice, found, around) for choice, found in zip(found, tried, strict=True)]
        yardstick = self._yardstick(linear, around)
        free = psutil.virtual_memory().available
        chosen, reason = recommend(candidates, yardstick.metric, free)
        output = (data.recipe.outputs or ())[0]
        return Advice(
            data=Path(self._order.splits["train"]).name,
            task="category" if around.share else "number",
            output=output.name,
            metric="accuracy" if around.share else "r2",
            rows=ready.whole,
            read=ready.read,
            sampled=data.rows,
            decisions=data.decisions,
            candidates=tuple(candidates),
            linear=yardstick,
            recommended=chosen.name,
            reason=reason,
            command=chosen.command,
            cores=self._order.cores,
            load=os.getloadavg()[0],
            free_memory=free,
            seconds=time.monotonic() - self._began,
        )

    def _left(self) -> float:
        return self._until - time.monotonic()

    def _import(self) -> float:
        """Import what probes need, before any fork that trains; return how long a process takes until then."""
        from yunmo.training.probe import import_all

        import_all()
        return time.time() - psutil.Process().create_time()

    def _prepare(self, recipe: Recipe, name: str) -> Forked:
        """Begin to prepare a sample."""
        return Forked(partial(_prepare, self._order, recipe, self._folder / name))

    def _opened(self, preparing: Forked, name: str) -> tuple[Prepared, _Ready]:
        from yunmo.data.prepared import load_prepared

        told = preparing.wait(self._until)
        if not told:
            raise DeadlineExceeded(
                "reading the data takes longer than the advice may",
                where=Path(self._order.splits["train"]).name,
                remedy="Train with --budget, or give a part of the data",
            )
        return load_prepared(self._folder / name), msgspec.convert(told[0], _Ready)

    def _sample(self, recipe: Recipe) -> Prepared:
        """Return the sample that a network's fields need: texts may be prepared in several ways."""
        kind = _kind(recipe)
        if kind not in self._samples:
            name = f"sample-{len(self._samples)}"
            self._samples[kind] = self._opened(self._prepare(recipe, name), name)[0]
        return self._samples[kind]

    def _linear(self, data: Prepared) -> _Linear:
        from yunmo.training.findings import Learned

        seconds = min(_LINEAR_SECONDS, _LINEAR_SHARE * self._left())
        fork = Forked(partial(_try_linear, data, seconds))
        told, note = self._told(fork, seconds + _LEAST)
        probes = [msgspec.convert(each, Learned) for each in told]
        grown = probes[-1].grown if probes else None
        return _Linear(probes, grown, None if probes else note)

    def _around(self, data: Prepared, ready: _Ready, starting: float, linear: _Linear) -> Surroundings:
        from yunmo.training.estimate import Surroundings, linear_seconds

        encoded = sum(array.nbytes for array in data.inputs("train").values())
        return Surroundings(
            whole=ready.whole,
            sampled=data.rows,
            row_bytes=encoded // max(1, data.rows["train"]),
            base=psutil.Process().memory_info().rss,
            starting=starting,
            reading=ready.reading,
            prepared_bytes=ready.grown,
            encoding=ready.encoding,
            linear=linear_seconds(linear.probes, ready.whole["train"]),
            linear_bytes=linear.grown,
            share=isinstance((data.recipe.outputs or ())[0], CategoryOutput),
        )

    def _yardstick(self, linear: _Linear, around: Surroundings) -> Yardstick:
        from yunmo.training.estimate import metric_range, short

        return Yardstick(
            name="logistic regression" if around.share else "ridge regression",
            seconds=around.linear,
            metric=metric_range(linear.probes, 1, around),
            probes=short(linear.probes),
            note=linear.note,
        )

    def _candidate(self, choice: Choice, tried: _Tried, around: Surroundings) -> Candidate:
        from yunmo.training.estimate import estimate

        line = self._line(choice)
        candidate = Candidate(name=choice.name, command=line, settings=choice.settings, note=tried.note)
        return estimate(candidate, tried.cost, tried.probes, around)

    def _others(self, others: Sequence[Choice], ready: _Ready, first: Cost | None) -> list[_Tried]:
        """Try one network after the other as long as there is time."""
        like = recipe_from(first.recipe).train if first is not None else None
        return [
            self._try(choice, self._left() / (len(others) - place), ready, like) for place, choice in enumerate(others)
        ]

    def _line(self, choice: Choice) -> str:
        settings = (word for setting in choice.settings for word in ("--set", setting))
        return shlex.join((*self._order.command, *settings))

    def _try(
        self, choice: Choice, seconds: float, ready: _Ready, like: TrainSpec | None, *, until: float | None = None
    ) -> _Tried:
        """Return what a probe of a network found.

        Args:
            choice: the network.
            seconds: that it may take.
            ready: what the sample stands for.
            like: of the first network; others take its precision and threads, since measuring them takes long.
            until: when a probe is ended that has found nothing, if that is later.
        """
        from yunmo.training.findings import Cost, Finding, Learned

        if seconds < _LEAST:
            return _Tried(None, [], "not probed: no time was left")
        ends = time.monotonic() + seconds
        try:
            data = self._sample(choice.recipe)
            recipe = _with_fields(data.recipe, choice.recipe)
            if like is not None:
                recipe = _measured_as(recipe, like)
            work = partial(_try, self._order, data, recipe, ready.whole, ends - time.monotonic() - _CLOSING)
            told, note = self._told(Forked(work), ends - time.monotonic(), until)
        except InternalError:
            raise
        except YunmoError as error:
            return _Tried(None, [], f"not possible: {error.message}")
        findings = [msgspec.convert(each, Finding) for each in told]
        costs = [each for each in findings if isinstance(each, Cost)]
        probes = [each for each in findings if isinstance(each, Learned)]
        return _Tried(costs[-1] if costs else None, probes, note)

    def _told(self, fork: Forked, seconds: float, until: float | None = None) -> tuple[list[Any], str | None]:
        """Return what a fork told, and why that is nothing, if it is.

        Args:
            fork: at work.
            seconds: after which it is ended.
            until: when it is ended if it has told nothing by then; None: after the same seconds.
        """
        began = time.monotonic()
        told = fork.wait(min(self._until, began + max(0.0, seconds)), until)
        if told:
            return told, None
        if fork.status is not None and fork.status < 0:
            return [], f"its process was ended ({signal.Signals(-fork.status).name}): memory may be too small"
        return [], f"not probed: {time.monotonic() - began:.1f} s were not enough for its first steps"


def _prepare(order: Order, recipe: Recipe, folder: Path, say: Say) -> None:
    """Prepare a sample: the work of a fork."""
    from yunmo.data.limits import Limits
    from yunmo.data.prepare import prepare
    from yunmo.data.sample import Sample
    from yunmo.data.sources.pack import pack
    from yunmo.data.sources.thin import thin
    from yunmo.training.memory import Memory

    memory = Memory()
    splits: dict[str, Path] = {}
    ratios: dict[str, float] = {}
    for split, path in order.splits.items():
        place = folder.with_name(f"{folder.name}-files") / split
        place.mkdir(parents=True)
        thinned = thin(Path(path), place, seed=recipe.train.seed)
        splits[split], ratios[split] = pack(thinned.path, place), thinned.ratio
    sample = Sample(seed=recipe.train.seed)
    began = time.monotonic()
    try:
        prepare(
            recipe,
            splits,
            folder,
            target=order.target,
            limits=Limits(pixels=order.max_pixels),
            embeddings={name: Path(path) for name, path in order.embeddings.items()},
            sample=sample,
        )
    except DataError as error:
        if max(ratios.values()) == 1:
            raise
        where = f"{error.where} (as counted in a share of the rows)" if error.where else None
        raise type(error)(error.message, where=where, remedy=error.remedy) from None
    largest = max(ratios.values())
    say(
        _Ready(
            whole={split: round(rows * ratios.get(split, ratios["train"])) for split, rows in sample.whole.items()},
            reading=(sample.drawn_at - began) * largest,
            encoding=time.monotonic() - sample.drawn_at,
            grown=round(memory.grown() * largest),
            read=1 / ratios["train"],
        )
    )


def _try_linear(data: Prepared, seconds: float, say: Say) -> None:
    """Try the linear model: the work of a fork."""
    from yunmo.training.memory import Memory

    memory = Memory()  # before scikit-learn is imported, which training does, too
    from yunmo.training.probe_linear import probe_linear

    probe_linear(data, data.recipe, seconds=seconds, memory=memory, tell=say)


def _try(order: Order, data: Prepared, recipe: Recipe, whole: dict[str, int], seconds: float, say: Say) -> None:
    """Try a network: the work of a fork."""
    from yunmo.training.probe import probe

    with tempfile.TemporaryDirectory(dir=order.folder) as folder:
        probe(data, recipe, whole, Path(folder), cores=order.cores, seconds=seconds, tell=say)


def _with_fields(prepared: Recipe, wanted: Recipe) -> Recipe:
    """Return a prepared recipe with a network's fields: what these leave open of the data is as it was prepared."""
    known = {field.name: field for field in prepared.inputs or ()}
    inputs = []
    for field in wanted.inputs or ():
        open_keys = [
            key
            for key in field.__struct_fields__
            if getattr(field, key) is None and key not in ("encoder", "augment", "average_flips")
        ]
        found = {key: getattr(known[field.name], key) for key in open_keys}
        inputs.append(msgspec.structs.replace(field, **found))
    return msgspec.structs.replace(prepared, inputs=tuple(inputs), combine=wanted.combine)


def _measured_as(recipe: Recipe, like: TrainSpec) -> Recipe:
    """Return a recipe with precision and threads of another, where it leaves them open."""
    precision = like.precision if recipe.train.precision == "auto" else recipe.train.precision
    train = msgspec.structs.replace(recipe.train, precision=precision, threads=recipe.train.threads or like.threads)
    return msgspec.structs.replace(recipe, train=train)


def _kind(recipe: Recipe) -> bytes:
    """Return what tells apart recipes whose fields are prepared differently."""
    return msgspec.json.encode(
        [
            (field.tokenizer, field.length, field.encoder is None or isinstance(field.encoder, BagEncoder))
            for field in recipe.inputs or ()
            if isinstance(field, TextField)
        ]
    )


if __name__ == "__main__":
    main()
