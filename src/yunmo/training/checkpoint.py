"""Checkpoints: everything a run needs to go on exactly as if it had never stopped, in one file.

The file is safetensors with JSON in its header, replaced atomically, so after a crash there is the old one or the new
one. No pickle.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save
from torch import Tensor

from yunmo.core.errors import TrainingFailed
from yunmo.core.files import write_atomic

_VERSION = 1


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A state of training at the end of an epoch."""

    tensors: dict[str, dict[str, Tensor]]
    """By part: model, optimizer, average, best."""
    facts: dict[str, Any]
    """JSON-able: epoch, schedule, history, random states of Python and NumPy, …"""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint file.

    Raises:
        StorageFull: no space left; the old file is untouched.
    """
    flat = {
        f"{part}/{name}": tensor.detach().contiguous()
        for part, tensors in checkpoint.tensors.items()
        for name, tensor in tensors.items()
    }
    write_tensors(path, flat, {"version": str(_VERSION), "facts": json.dumps(checkpoint.facts)})


def load_checkpoint(path: Path) -> Checkpoint | None:
    """Read a checkpoint file; ``None`` if there is none.

    Raises:
        TrainingFailed: it can't be read, or is from a newer Yunmo.
    """
    if not path.exists():
        return None
    tensors: dict[str, dict[str, Tensor]] = {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            facts = file.metadata()
            for key in file.keys():  # noqa: SIM118  not a dict
                part, _, name = key.partition("/")
                tensors.setdefault(part, {})[name] = file.get_tensor(key)
    except (safetensors.SafetensorError, OSError) as error:
        raise TrainingFailed(
            f"the checkpoint can't be read: {error}", where=str(path), remedy="Delete the file to start again"
        ) from None
    if int(facts["version"]) > _VERSION:
        raise TrainingFailed("the checkpoint is from a newer Yunmo", where=str(path), remedy="Upgrade Yunmo")
    return Checkpoint(tensors, json.loads(facts["facts"]))


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file atomically.

    Raises:
        StorageFull: no space left; nothing half written is kept.
    """
    contiguous = {name: tensor.detach().contiguous() for name, tensor in tensors.items()}
    write_atomic(path, save(contiguous, dict(metadata) if metadata else None))


def random_states() -> tuple[Tensor, dict[str, Any]]:
    """Return the states of torch's, NumPy's and Python's global generators."""
    name, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    numpy_state = [name, np.asarray(keys).tolist(), position, has_gauss, cached]
    return torch.get_rng_state(), {"numpy": numpy_state, "python": [version, list(internal), gauss]}


def restore_random_states(state: Tensor, others: Mapping[str, Any]) -> None:
    """Put back what `random_states` returned."""
    torch.set_rng_state(state)
    name, keys, position, has_gauss, cached = others["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    version, internal, gauss = others["python"]
    random.setstate((version, tuple(internal), gauss))
