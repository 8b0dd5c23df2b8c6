"""The plan: everything that a recipe left open, decided from task, data and cores. Epochs are `budget`'s.

The defaults come from experiments on handwritten digits, CIFAR-10's cats and dogs and scikit-learn's tables; the
reasons given beside each decision are what a user sees. Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from yunmo.core import encoders as specs
from yunmo.core.errors import RecipeError
from yunmo.core.events import Decision
from yunmo.core.fields import (
    Augment,
    CategoryField,
    CategoryOutput,
    FieldStatistics,
    ImageField,
    InputField,
    OutputField,
    SequenceField,
    TextField,
)
from yunmo.core.recipe import CombineSpec, Recipe, ScheduleSpec, TrainSpec
from yunmo.training.budget import DEFAULT_BUDGET, TUNING_BUDGET, is_small
from yunmo.training.data import TrainingData

_ONE_HOT_LIMIT = 16
_CLIP = 5.0
_ACTIVATION: specs.Activation = "silu"
_FEW_ROWS = 500
"""Validation rows below which the best epoch is chosen by luck."""
_LARGE_SIDE, _LAST_MAP = 64, 8
"""Pixels from which the stem halves pictures, and pixels up to which the last map is small enough."""
_LEARNING = (
    specs.ResnetEncoder,
    specs.CnnEncoder,
    specs.RnnEncoder,
    specs.MlpEncoder,
    specs.BagEncoder,
    specs.TextCnnEncoder,
    specs.TransformerEncoder,
    specs.PretrainedEncoder,
)


def plan(data: TrainingData, *, cores: int) -> tuple[Recipe, list[Decision]]:
    """Decide everything that the recipe of prepared data leaves open, but epochs, precision and threads, if measured.

    Args:
        data: prepared data with its recipe.
        cores: processor cores that the job may use.

    Raises:
        RecipeError: the recipe does not fit the data (a batch larger than it, say).
    """
    return complete(data.recipe, data.statistics, data.rows["train"], data.rows.get("validation", 0), cores=cores)


def complete(
    recipe: Recipe, statistics: dict[str, FieldStatistics], rows: int, validation_rows: int, *, cores: int
) -> tuple[Recipe, list[Decision]]:
    """As `plan`, from the facts themselves. A recipe that leaves nothing open comes back unchanged."""
    planner = _Planner(recipe, statistics, rows, validation_rows, cores)
    planned = msgspec.structs.replace(
        recipe,
        inputs=tuple(planner.input(field) for field in recipe.inputs or ()),
        combine=planner.combine(),
        outputs=tuple(planner.output(field) for field in recipe.outputs or ()),
        train=planner.train(),
    )
    return planned, _joined(planner.decisions)


@dataclass(frozen=True, slots=True)
class _Defaults:
    """How a kind of network is trained best."""

    optimizer: str
    lr: float
    weight_decay: float
    batch_size: int
    schedule: ScheduleSpec
    label_smoothing: float
    why: str
    lookahead: float = 0.0
    rest: str = "adamw"
    norm_lr: float | None = None


_ONE_CYCLE = ScheduleSpec(type="one_cycle", warmup=0.1)
_COSINE = ScheduleSpec(type="cosine", warmup=0.1)
_SMALL_PICTURES = _Defaults("muon", 0.1, 0.02, 64, _ONE_CYCLE, 0.1, "best for small residual networks")
_PICTURES = _Defaults(
    "muon",
    0.15,
    0.04,
    256,
    ScheduleSpec(type="one_cycle", warmup=0.15),
    0.2,
    "reached most within minutes on pictures",
    lookahead=0.95,
    rest="nesterov",
    norm_lr=4.8,
)
_OWN_RESNET = _Defaults("muon", 0.15, 0.02, 128, _ONE_CYCLE, 0.1, "steady for any residual network")
_OWN_CNN = _Defaults("adamw", 1e-3, 0.01, 64, _ONE_CYCLE, 0.1, "steady for any convolutional network")
_SEQUENCES = _Defaults("adamw", 2e-3, 0.05, 128, _COSINE, 0.1, "steady for recurrent networks")
_TEXTS = _Defaults(
    "adamw", 5e-3, 3.0, 64, _ONE_CYCLE, 0.0, "best for bags of n-grams, which a strong decay keeps small"
)
_TOKENS = _Defaults("adamw", 1e-3, 0.1, 64, _ONE_CYCLE, 0.1, "steady for networks that learn vectors of tokens")
_PRETRAINED = _Defaults("adamw", 1e-3, 0.01, 32, _ONE_CYCLE, 0.1, "usual for fine-tuning")
_TUNING_RATES = {"all": 5e-5, "last": 1e-4, "lora": 5e-4, "none": None}
_TABLES = _Defaults("adamw", 3e-3, 0.2, 64, _COSINE, 0.1, "best on tables in cross-validation")


class _Planner:
    """Walks once through a recipe and notes what it decides."""

    def __init__(
        self,
        recipe: Recipe,
        statistics: dict[str, FieldStatistics],
        rows: int,
        validation_rows: int,
        cores: int,
    ) -> None:
        self.recipe, self.statistics, self.rows, self.cores = recipe, statistics, rows, cores
        self.validation_rows = validation_rows
        self.decisions: list[Decision] = []
        self.inputs: list[InputField] = []

    def decide(self, key: str, value: Any, reason: str) -> Any:
        """Note a decision and return its value."""
        self.decisions.append(Decision(key, _shown(value), reason))
        return value

    def input(self, field: InputField) -> InputField:
        """Decide a field's encoder and, for pictures, augmentation and averaging."""
        planned: InputField = field
        if field.encoder is None:
            encoder, reason = self._encoder(field)
            planned = msgspec.structs.replace(field, encoder=self.decide(f"{field.name}.encoder", encoder, reason))
        if isinstance(planned, TextField) and isinstance(planned.encoder, specs.PretrainedEncoder):
            planned = self._rate(planned, planned.encoder)
        if isinstance(planned, ImageField):
            planned = self._picture(planned, own_encoder=field.encoder is not None)
        self.inputs.append(planned)
        return planned

    def _encoder(self, field: InputField) -> tuple[Any, str]:
        if isinstance(field, ImageField):
            return _resnet(self.statistics[field.name].shape)
        if isinstance(field, SequenceField):
            encoder = specs.RnnEncoder(
                cell="gru", hidden=128, layers=2, bidirectional=True, project=128, pool="mean_max", dropout=0.2
            )
            return encoder, "reads sequences of any length in both directions"
        if isinstance(field, TextField):
            return specs.BagEncoder(), "means of n-gram vectors: as good as larger networks on small data, and fast"
        if isinstance(field, CategoryField):
            count = len(self.statistics[field.name].categories)
            if count <= _ONE_HOT_LIMIT:
                return specs.OneHotEncoder(), f"{count} categories"
            return specs.EmbeddingEncoder(size=min(32, 4 + count // 8)), f"{count} categories: too many for one-hot"
        return specs.FlatEncoder(clip=_CLIP), f"scaled values, at most {_CLIP:g} deviations from the mean"

    def _picture(self, field: ImageField, *, own_encoder: bool) -> ImageField:
        augment, flips = field.augment, field.average_flips
        key = field.name
        if augment is None:
            if own_encoder and self._own_optimizer:
                reason = "encoder and optimizer are the recipe's own: nothing is added"
                augment = self.decide(f"{key}.augment", Augment(), reason)
            else:
                chosen, reason = _augmentation(self.statistics[field.name].shape)
                augment = self.decide(f"{key}.augment", chosen, reason)
        if flips is None:
            reason = "the network learned from mirror images" if augment.flip else "mirror images were not learned"
            flips = self.decide(f"{key}.average_flips", augment.flip, reason)
        return msgspec.structs.replace(field, augment=augment, average_flips=flips)

    def _rate(self, field: TextField, encoder: specs.PretrainedEncoder) -> TextField:
        """Decide the learning rate of a pretrained encoder, which is smaller than that of what begins at random."""
        rate = _TUNING_RATES[encoder.tune]
        if encoder.lr is not None or rate is None:
            return field
        rate = self.decide(
            f"{field.name}.encoder.lr", rate, f"changes what was learned before a little ({encoder.tune})"
        )
        return msgspec.structs.replace(field, encoder=msgspec.structs.replace(encoder, lr=rate))

    def combine(self) -> CombineSpec:
        """Decide what comes between encoders and heads."""
        if self.recipe.combine is not None:
            return self.recipe.combine
        given = [field.encoder for field in self.recipe.inputs or ()]
        learning = [field for field in self.inputs if isinstance(field.encoder, _LEARNING)]
        if not learning:
            chosen = CombineSpec(hidden=(64,), activation="silu", dropout=0.4, linear=True, zero_heads=True, members=8)
            reason = "a table: eight small networks beside a linear model, averaged"
        elif len(self.inputs) > 1:
            chosen = CombineSpec(hidden=(128,), activation="silu", dropout=0.2)
            reason = "fields of several kinds, brought together"
        else:
            chosen = CombineSpec(zero_heads=given[0] is None)
            reason = "one field: its features go straight to the heads"
        decided: CombineSpec = self.decide("combine", chosen, reason)
        return decided

    def output(self, output: OutputField) -> OutputField:
        """Decide label smoothing."""
        if not isinstance(output, CategoryOutput) or output.label_smoothing is not None:
            return output
        smoothing = 0.0 if self._own_optimizer else self._defaults.label_smoothing
        reason = "the optimizer is the recipe's own: nothing is added" if self._own_optimizer else self._defaults.why
        decided = self.decide(f"{output.name}.label_smoothing", smoothing, reason)
        return msgspec.structs.replace(output, label_smoothing=decided)

    @property
    def _own_optimizer(self) -> bool:
        return self.recipe.train.optimizer is not None

    @property
    def _defaults(self) -> _Defaults:
        kinds = [type(field.encoder) for field in self.inputs]
        if specs.PretrainedEncoder in kinds:
            return _PRETRAINED
        if specs.ResnetEncoder in kinds:
            if is_small(tuple(self.inputs)):
                return _SMALL_PICTURES
            return _PICTURES if all(map(_bears_high_rates, self.inputs)) else _OWN_RESNET
        if specs.CnnEncoder in kinds:
            return _OWN_CNN
        if set(kinds) == {specs.BagEncoder}:
            return _TEXTS
        if specs.TextCnnEncoder in kinds or specs.TransformerEncoder in kinds:
            return _TOKENS
        return _SEQUENCES if specs.RnnEncoder in kinds else _TABLES

    def train(self) -> TrainSpec:
        """Decide optimizer, rate, batch, schedule, averaging, threads and budget."""
        train, best = self.recipe.train, self._defaults
        plain = "plain, as the optimizer is the recipe's own"
        own = self._own_optimizer
        batch = self._batch_size(best)
        changes: dict[str, Any] = {}

        def fill(key: str, value: Any, reason: str) -> None:
            if getattr(train, key) is None and key not in changes:
                changes[key] = self.decide(f"train.{key}", value, reason)

        fill("optimizer", best.optimizer, best.why)
        if best.optimizer == "muon" and not own:
            fill("rest", best.rest, best.why)
            if best.norm_lr is not None and (train.rest or best.rest) == best.rest:
                fill("norm_lr", best.norm_lr, best.why)
            if train.betas == (0.9, 0.999):
                changes["betas"] = (0.9, 0.99)
        fill("lr", _usual_rate(train.optimizer) if own else best.lr, "usual for it" if own else best.why)
        fill("weight_decay", 0.0 if own else best.weight_decay, plain if own else best.why)
        fill("batch_size", batch, f"for {self.rows} rows")
        fill("schedule", ScheduleSpec(type="constant") if own else best.schedule, plain if own else best.why)
        if self._recurrent:
            fill("gradient_clip", 1.0, "keeps recurrent networks from exploding")
        elif self._pretrained:
            fill("gradient_clip", 1.0, "usual for fine-tuning")
        fill("ema", 0.0, "no running mean of the weights")
        fill("lookahead", 0.0 if own else best.lookahead, plain if own else best.why)
        if own or train.early_stopping or self.validation_rows >= _FEW_ROWS:
            fill("keep", "best", "of the epochs, on validation")
        else:
            fill("keep", "last", f"{self.validation_rows} validation rows are too few to tell the best epoch")
        if (reason := self._one_thread(batch)) is not None:
            fill("threads", 1, reason)
        if self._pretrained:
            fill("budget", TUNING_BUDGET, "seconds; fine-tuning takes minutes, and none was given")
        fill("budget", DEFAULT_BUDGET, "seconds; none was given")
        return msgspec.structs.replace(train, **changes)

    @property
    def _recurrent(self) -> bool:
        return any(isinstance(field.encoder, specs.RnnEncoder) for field in self.inputs)

    @property
    def _pretrained(self) -> bool:
        return any(isinstance(field.encoder, specs.PretrainedEncoder) for field in self.inputs)

    @property
    def _tabular(self) -> bool:
        return self._defaults is _TABLES

    def _batch_size(self, best: _Defaults) -> int:
        """Check the recipe's batch or choose one."""
        given = self.recipe.train.batch_size
        if isinstance(given, int) and given > self.rows:
            raise RecipeError(
                f"a batch of {given} is larger than the {self.rows} rows of training data",
                where="recipe, train.batch_size",
                remedy=f"Use at most {self.rows}, or 'full' for all rows in every step",
            )
        if given is not None:
            return self.rows if given == "full" else given
        size = best.batch_size
        if self._tabular:
            # Large tables need no more steps than these to be learned.
            while size < 1024 and self.rows / size > 1000:
                size *= 2
        return max(1, min(size, self.rows))

    def _one_thread(self, batch: int) -> str | None:
        """Say why one thread is best; ``None``: it is to be measured."""
        pixels = sum(
            self.statistics[field.name].shape[0] * self.statistics[field.name].shape[1]
            for field in self.inputs
            if isinstance(field, ImageField) and isinstance(field.encoder, _LEARNING)
        )
        if self._recurrent:
            return "recurrent steps are slower on several"
        if pixels * batch < 32_768 and not self._pretrained:
            return "steps this small are slower on several"
        return "there is one core" if self.cores == 1 else None


def _shown(value: Any) -> str:
    """Return a decided value as a person reads it: of a specification, what differs from its defaults."""
    if not isinstance(value, msgspec.Struct):
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    plain: dict[str, Any] = msgspec.to_builtins(value)
    default = {field.name: field.default for field in msgspec.structs.fields(value)}
    own = {key: given for key, given in plain.items() if key == "type" or given != default.get(key)}
    kind = own.pop("type", None)
    rest = ", ".join(f"{key}={msgspec.json.encode(given).decode()}" for key, given in own.items())
    return f"{kind}: {rest}" if kind and rest else kind or rest or "none"


def _joined(decisions: list[Decision]) -> list[Decision]:
    """Join what is said of many fields with the same words: a table has dozens."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for decision in decisions:
        field, _, key = decision.key.rpartition(".")
        groups.setdefault((key, decision.value, decision.reason), []).append(field)
    joined = []
    for (key, value, reason), fields in groups.items():
        name = fields[0] if len(fields) <= 1 else f"{len(fields)} fields ({fields[0]} to {fields[-1]})"
        joined.append(Decision(f"{name}.{key}" if name else key, value, reason))
    return joined


def _usual_rate(optimizer: str | None) -> float:
    if optimizer == "muon":
        return 0.1
    return 1e-2 if optimizer in ("sgd", "momentum", "nesterov") else 1e-3


def _bears_high_rates(field: InputField) -> bool:
    """Tell whether a field has the network that `_PICTURES` are for: its norms learn no scale, and nothing is dense."""
    encoder = field.encoder
    return isinstance(encoder, specs.ResnetEncoder) and not encoder.norm_scale and encoder.block == "one"


def _resnet(shape: tuple[int, ...]) -> tuple[specs.ResnetEncoder, str]:
    """Choose a residual network for pictures ``(height, width, channels)``."""
    height, width, _ = shape
    side = min(height, width)
    if side <= 16:
        filters: tuple[int, ...] = (16, 32, 64)
        blocks: tuple[int, ...] = (0, 1, 1)
        while min(height, width) >> (len(filters) - 1) < 1:
            filters, blocks = filters[:-1], blocks[:-1]
        return specs.ResnetEncoder(filters=filters, blocks=blocks, activation=_ACTIVATION), f"{height}x{width} pixels"
    large = side >= _LARGE_SIDE
    stages = [32, 64, 128]
    while side >> (len(stages) + large) > _LAST_MAP:
        stages.append(256)
    encoder = specs.ResnetEncoder(
        filters=(32, *stages),
        blocks=(0, *(1 for _ in stages)),
        block="one",
        stem="whitened_half" if large else "whitened",
        start="identity",
        norm_momentum=0.4,
        norm_scale=False,
        activation="gelu",
    )
    return encoder, f"learns {height}x{width} pixels within minutes on few cores"


def _augmentation(shape: tuple[int, ...]) -> tuple[Augment, str]:
    height, width, channels = shape
    side = min(height, width)
    if channels == 1:
        return Augment(rotate=10.0, scale=0.1, shift=0.07), "gray: moved and turned a little, never mirrored"
    if side <= 16:
        return Augment(flip=True, crop=1), "small color pictures: mirrored and moved"
    chosen = Augment(flip=True, alternate=True, crop=side // 8, cutout=3 * side // 8)
    return chosen, "color pictures: moved, partly covered, and mirrored in every other epoch"
