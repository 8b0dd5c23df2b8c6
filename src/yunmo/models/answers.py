"""Asking a trained network with arrays: for those who evaluate and pack it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from yunmo.core.errors import BundleError
from yunmo.core.fields import FieldStatistics
from yunmo.core.recipe import Recipe
from yunmo.models.network import Network


def load_network(recipe: Recipe, statistics: Mapping[str, FieldStatistics], weights: Path) -> Network:
    """Return a trained network in evaluation mode.

    Args:
        recipe: the resolved recipe it was trained by.
        statistics: of its fields.
        weights: its safetensors file.

    Raises:
        BundleError: the weights are not those of the recipe's network.
    """
    network = Network(recipe, statistics)
    try:
        network.load_state_dict(load_file(weights))
    except RuntimeError as error:
        raise BundleError(f"not the weights of this recipe's network: {error}", where=str(weights)) from None
    return network.eval()


def answer(network: Network, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return what a network predicts for encoded rows, in full precision.

    Args:
        network: in evaluation mode.
        tensors: as ``Field.encode`` makes them; memory maps and read-only arrays are copied.

    Returns:
        probabilities float32 ``[N, K]`` of each category or labels, values float32 ``[N]`` of each number
    """
    with torch.inference_mode():
        answers = network.predict(
            {name: torch.from_numpy(np.require(values, requirements="W")) for name, values in tensors.items()}
        )
    return {name: values.numpy() for name, values in answers.items()}
