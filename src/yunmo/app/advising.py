"""Asking for advice before a training: a process on files of this machine, without a workspace or a service."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import psutil

from yunmo.control.jobs.process import training_environment
from yunmo.core.advice import Advice
from yunmo.core.errors import DeadlineExceeded, InternalError, InvalidInput, from_problem
from yunmo.core.fields import TextField
from yunmo.core.recipe import pretrained_encoders, recipe_from
from yunmo.core.settings import Settings

SECONDS = 20.0
"""How long the command that asks may take, from its start to its end."""
_SHOWING = 1.6
"""Seconds of it that are kept for starting, showing and ending, of which each takes longer on a busy machine."""
_LATE = 5.0
_SPLITS = ("train", "validation", "test")


def advise(
    recipe: dict[str, Any], folder: Path, *, target: str | None, command: Sequence[str], settings: Settings
) -> Advice:
    """Return which network to take for a task, with what it is expected to cost and to reach.

    Everything happens in a process of its own, which is ended with this one; what it writes is removed.

    Args:
        recipe: plain data.
        folder: what its paths are relative to.
        target: column of a table to predict, if the recipe names no outputs.
        command: the line that would train.
        settings: of this installation: cores, and how large pictures may be.

    Raises:
        InvalidInput: the recipe names a dataset of a workspace instead of files, or a pretrained encoder.
        RecipeError: a key or value that does not fit.
        DataError: data that no model can be trained on.
        MissingExtra: what training needs is not installed.
        DeadlineExceeded: reading the data alone takes longer.
    """
    checked = recipe_from(recipe)
    if checked.data.train is None:
        raise InvalidInput(
            "advice needs the files themselves", where="recipe, data", remedy="Write data: {train: FILE}"
        )
    for index, _ in pretrained_encoders(checked):
        raise InvalidInput(
            "a pretrained encoder is not tried: one step of it may take seconds",
            where=f"recipe, inputs[{index}].encoder",
            remedy="Leave the encoder out to see what a network from scratch would reach",
        )
    paths = {split: path for split in _SPLITS if (path := getattr(checked.data, split))}
    cores = checked.train.threads or settings.threads or len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="yunmo-advise-") as scratch:
        order = {
            "recipe": recipe,
            "target": target,
            "splits": {split: str(folder / path) for split, path in paths.items()},
            "embeddings": {
                field.name: str(folder / field.embeddings.file)
                for field in checked.inputs or ()
                if isinstance(field, TextField) and field.embeddings is not None
            },
            "command": list(command),
            "folder": scratch,
            "seconds": max(1.0, SECONDS - _SHOWING - (time.time() - psutil.Process().create_time())),
            "cores": cores,
            "max_pixels": settings.max_pixels,
        }
        return msgspec.convert(_answer(order, cores, Path(scratch)), Advice)


def _answer(order: dict[str, Any], cores: int, scratch: Path) -> dict[str, Any]:
    """Have the order carried out; whatever happens here, its processes end."""
    with (scratch / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "yunmo.control.jobs.advise"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            # Whatever libraries write for themselves goes where it is removed.
            env=training_environment(cores) | {"TMPDIR": str(scratch)},
            # In a group of its own, which is ended as a whole: it forks.
            start_new_session=True,
        )
    try:
        written, _ = process.communicate(msgspec.json.encode(order), timeout=order["seconds"] + _LATE)
    except subprocess.TimeoutExpired:
        raise _late(order) from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.returncode == -signal.SIGALRM:
        raise _late(order)
    try:
        answer: dict[str, Any] = msgspec.json.decode(written)
    except msgspec.DecodeError:
        said = (scratch / "log").read_text(encoding="utf-8", errors="replace")[-2000:]
        raise InternalError(f"the process ended with {process.returncode}: {said}") from None
    if "problem" in answer:
        raise from_problem(answer["problem"])
    result: dict[str, Any] = answer["result"]
    return result


def _late(order: dict[str, Any]) -> DeadlineExceeded:
    return DeadlineExceeded(
        f"no advice within {order['seconds']:.0f} s", remedy="Train with --budget, or give a part of the data"
    )
