"""The network: an encoder for each input field, combined, and one head per output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from yunmo.core import encoders as specs
from yunmo.core.errors import RecipeError
from yunmo.core.fields import (
    JOINED_NUMBERS,
    CategoryField,
    CategoryOutput,
    FieldStatistics,
    ImageField,
    InputField,
    LabelsOutput,
    NumberField,
    NumberOutput,
    OutputField,
    SequenceField,
    TextField,
)
from yunmo.core.recipe import CombineSpec, Recipe
from yunmo.models.combine import Combine
from yunmo.models.encoders.pooling import real
from yunmo.models.encoders.pretrained import PretrainedEncoder
from yunmo.models.encoders.registry import build_encoder
from yunmo.models.encoders.tokens import TokenEmbedding, embedded
from yunmo.models.initialize import initialize
from yunmo.models.scaling import Scaling, center_and_spread

_BYTE = 1 / 255
"""One step of a pixel in the unit of the statistics, 0 to 1."""
_LEAST = 1e-6
"""Of a label's mean probability, and of 1 less it: a float32 near 1 has no finer steps."""
_STEPS_OF_CHANNELS = 3
"""Dimensions of a batch of sequences, and of embedded texts."""


class Network(nn.Module):
    """All of a model that learns, and the scaling around it.

    Input tensors are those of ``Field.encode``: pictures uint8 ``[N, H, W, C]``, numbers float32 ``[N]``, categories
    int64 ``[N]``, dates float32 ``[N, 6]``, vectors float32 ``[N, F]``, sequences float32 ``[N, T, C]`` and texts int32
    ``[N, T]``, both with ``NAME_length`` int64 ``[N]``. Numbers that are scaled together (`joined_numbers`) may come
    side by side too, as `JOINED_NUMBERS`.

    Args:
        recipe: resolved: inputs and outputs with their encoders.
        statistics: of each field, by name.

    Raises:
        RecipeError: a field without encoder, or an encoder that does not fit its field.
    """

    temperatures: Tensor
    """Of each output, ``[outputs]``: what logits are divided by; 1 until it is calibrated."""

    def __init__(self, recipe: Recipe, statistics: Mapping[str, FieldStatistics]) -> None:
        super().__init__()
        combine = recipe.combine or CombineSpec()
        self.inputs, self.outputs = recipe.inputs or (), recipe.outputs or ()
        self.numbers = _Numbers(self.inputs, statistics)
        self.parts = nn.ModuleList(
            _Part(field, statistics[field.name]) for field in self.inputs if field.name not in self.numbers.names
        )
        features = self.numbers.features + sum(part.features for part in self._parts())
        sizes = {output.name: _size(output, statistics[output.name]) for output in self.outputs}
        self.combine = Combine(combine, features, sizes)
        self.members = combine.members
        self.targets = nn.ModuleList(
            Scaling(output.scale if isinstance(output, NumberOutput) else "none", statistics[output.name])
            for output in self.outputs
        )
        self.mirrored = tuple(
            field.name for field in self.inputs if isinstance(field, ImageField) and field.average_flips
        )
        self.register_buffer("temperatures", torch.ones(len(self.outputs)))
        initialize(self, recipe.train.initialization)

    def _parts(self) -> list[_Part]:
        return [part for part in self.parts if isinstance(part, _Part)]

    def fit(self, tensors: Mapping[str, Tensor]) -> None:
        """Let encoders compute what is not trained (a whitened stem) from a sample of training rows."""
        for part in self._parts():
            part.fit(tensors)

    def begin_with(self, vectors: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Let texts begin with vectors that were learned elsewhere: of each the tokens' numbers, and their vectors."""
        for part in self._parts():
            if part.embedding is not None and part.name in vectors:
                part.embedding.begin_with(*vectors[part.name])

    def begin(self, pretrained: Mapping[str, Path]) -> None:
        """Give pretrained encoders the weights that they begin with, and leave for training what is to be trained.

        Args:
            pretrained: safetensors files by field.

        Raises:
            DataError: weights that are not those of the encoder's architecture.
        """
        for name, encoder in self.pretrained().items():
            encoder.begin(pretrained[name])

    def finish(self) -> None:
        """Take what was only there for training into the weights: then they are those of `Network` as it is made."""
        for encoder in self.pretrained().values():
            encoder.finish()

    def pretrained(self) -> dict[str, PretrainedEncoder]:
        """Return the pretrained encoders by field."""
        return {part.name: part.encoder for part in self._parts() if isinstance(part.encoder, PretrainedEncoder)}

    def features(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the joined features ``[N, F]`` of all inputs."""
        encoded = [self.numbers(tensors)] if self.numbers.names else []
        encoded += [part(tensors) for part in self.parts]
        return encoded[0] if len(encoded) == 1 else torch.cat(encoded, 1)

    def member_answers(self, tensors: Mapping[str, Tensor], *, separate: bool = False) -> dict[str, Tensor]:
        """Return each member's own answer, which is what its loss is of.

        Args:
            tensors: a batch; with ``separate``, ``members`` batches one after the other.
            separate: whether each member has rows of its own.

        Returns:
            logits ``[members, N, K]`` of a category or of labels, scaled value ``[members, N, 1]`` of a number
        """
        return self.combine(self.features(tensors), separate=separate)  # type: ignore[no-any-return]  # Module.__call__

    def forward(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return logits ``[N, K]`` for each category and labels, and the scaled value ``[N]`` for each number.

        The logits of several members are the logarithm of their mean probability.
        """
        answers = self.member_answers(tensors)
        joined = {}
        for output in self.outputs:
            answer = answers[output.name]
            if isinstance(output, NumberOutput):
                joined[output.name] = answer.squeeze(2).mean(0)
            elif self.members == 1:
                joined[output.name] = answer[0]
            else:
                joined[output.name] = _mean_logits(output, answer)
        return joined

    def predict(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what a user gets: probabilities ``[N, K]`` and raw values ``[N]``, float32.

        Probabilities are those of `joined`, calibrated by the output's temperature.
        """
        answers = self.joined(tensors)
        return {
            output.name: self.raw(index, answers[output.name])
            if isinstance(output, NumberOutput)
            else _probabilities(output, answers[output.name] / self.temperatures[index], 1)
            for index, output in enumerate(self.outputs)
        }

    def joined(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return what `forward` does, float32; with ``average_flips`` joined with that of the mirror images.

        Two views are joined as members are: by their mean probability. A temperature comes after that, since it then
        never changes which class is the most probable one.
        """
        answers = {name: answer.float() for name, answer in self(tensors).items()}
        if not self.mirrored:
            return answers
        turned = dict(tensors)
        for name in self.mirrored:
            turned[name] = turned[name].flip(2)
        mirror = self(turned)
        for output in self.outputs:
            views = torch.stack([answers[output.name], mirror[output.name].float()])
            answers[output.name] = views.mean(0) if isinstance(output, NumberOutput) else _mean_logits(output, views)
        return answers

    def scaled(self, index: int, values: Tensor) -> Tensor:
        """Scale the raw targets of output ``index``, a number, as `forward` answers them."""
        scaled: Tensor = self.targets[index](values)
        return scaled

    def raw(self, index: int, values: Tensor) -> Tensor:
        """Bring scaled answers of output ``index``, a number, back to raw units."""
        target = self.targets[index]
        return target.inverse(values) if isinstance(target, Scaling) else values


def joined_numbers(inputs: Sequence[InputField]) -> tuple[str, ...]:
    """Return the names of the number fields that a network's graph takes in one tensor; none: each in its own."""
    names = tuple(field.name for field, _ in _plain_numbers(inputs))
    return names if len(names) > 1 else ()


def _plain_numbers(inputs: Sequence[InputField]) -> list[tuple[NumberField, specs.FlatEncoder]]:
    """Return the numbers that are scaled and no more, each with its encoder."""
    return [
        (field, field.encoder)
        for field in inputs
        if isinstance(field, NumberField) and isinstance(field.encoder, specs.FlatEncoder)
    ]


class _Numbers(nn.Module):
    """All plain numbers of a table at once: stacked and scaled together, a dozen operations less per column."""

    center: Tensor
    spread: Tensor
    limit: Tensor

    def __init__(self, inputs: tuple[InputField, ...], statistics: Mapping[str, FieldStatistics]) -> None:
        super().__init__()
        fields = _plain_numbers(inputs)
        self.names = tuple(field.name for field, _ in fields)
        self.features = len(fields)
        pairs = [center_and_spread(field.scale, statistics[field.name]) for field, _ in fields]
        limits = [encoder.clip for _, encoder in fields]
        self.clips = any(limit is not None for limit in limits)
        self.register_buffer("center", torch.tensor([center[0] for center, _ in pairs]), persistent=False)
        self.register_buffer("spread", torch.tensor([spread[0] for _, spread in pairs]), persistent=False)
        limit = torch.tensor([float("inf") if limit is None else limit for limit in limits])
        self.register_buffer("limit", limit, persistent=False)

    def forward(self, tensors: Mapping[str, Tensor]) -> Tensor:
        joined = tensors.get(JOINED_NUMBERS)
        values = torch.stack([tensors[name] for name in self.names], 1) if joined is None else joined
        scaled = (values - self.center) / self.spread
        return torch.minimum(torch.maximum(scaled, -self.limit), self.limit) if self.clips else scaled


class _Part(nn.Module):
    """One field: its scaling and its encoder."""

    def __init__(self, field: InputField, statistics: FieldStatistics) -> None:
        super().__init__()
        if field.encoder is None:
            raise RecipeError("has no encoder yet", where=f"recipe, input {field.name}", remedy="Plan the recipe first")
        self.name = field.name
        self.picture = isinstance(field, ImageField)
        self.sequence = isinstance(field, (SequenceField, TextField))
        self.scaling: Scaling | None = None
        self.embedding: TokenEmbedding | None = None
        if isinstance(field, TextField):
            if not isinstance(field.encoder, (specs.BagEncoder, specs.PretrainedEncoder)):
                self.embedding = TokenEmbedding(field, statistics)
                statistics = embedded(field, statistics)
        elif not isinstance(field, CategoryField):
            unit = _BYTE if isinstance(field, ImageField) else 1.0
            self.scaling = Scaling(field.scale, statistics, unit=unit)
        self.encoder = build_encoder(field.encoder, statistics)
        self.features = self.encoder.features

    def fit(self, tensors: Mapping[str, Tensor]) -> None:
        self.encoder.fit(self._scaled(tensors)[0])

    def forward(self, tensors: Mapping[str, Tensor]) -> Tensor:
        values, length = self._scaled(tensors)
        features: Tensor = self.encoder(values, length)
        return features

    def _scaled(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Return the field's values as its encoder gets them, and how long sequences are."""
        values = tensors[self.name]
        length = tensors[f"{self.name}_length"] if self.sequence else None
        if self.scaling is not None:
            values = values.float()
            if values.ndim == 1:
                values = values.unsqueeze(1)
            values = self.scaling(values)
        if self.picture:
            # A view: rows of channels stay side by side in memory, which is torch's channels_last.
            values = values.permute(0, 3, 1, 2)
        if self.embedding is not None and length is not None:
            values = self.embedding(values, length)
        if length is not None and values.ndim == _STEPS_OF_CHANNELS:
            values = values * real(values, length)
        return values, length


def _probabilities(output: CategoryOutput | LabelsOutput, logits: Tensor, axis: int) -> Tensor:
    """Return probabilities of logits whose categories lie along an axis: one of them holds, or any of the labels."""
    return logits.softmax(axis) if isinstance(output, CategoryOutput) else logits.sigmoid()


def _mean_logits(output: CategoryOutput | LabelsOutput, logits: Tensor) -> Tensor:
    """Return logits ``[N, K]`` of the mean probability of several ``[several, N, K]``."""
    mean = _probabilities(output, logits, 2).mean(0)
    if isinstance(output, CategoryOutput):
        return mean.clamp_min(1e-12).log()
    mean = mean.clamp(_LEAST, 1 - _LEAST)
    return mean.log() - (1 - mean).log()


def _size(output: OutputField, statistics: FieldStatistics) -> int:
    if isinstance(output, NumberOutput):
        return 1
    return len(output.categories or statistics.categories)
