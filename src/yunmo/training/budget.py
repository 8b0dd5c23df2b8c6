"""How many epochs: as many as help, and no more than the budget has time for."""

from __future__ import annotations

import msgspec

from yunmo.core.encoders import BagEncoder, CnnEncoder, PretrainedEncoder, ResnetEncoder, RnnEncoder
from yunmo.core.events import Decision
from yunmo.core.fields import ImageField, InputField, TextField
from yunmo.core.recipe import Recipe

DEFAULT_BUDGET = 300.0
"""Seconds of a whole run."""
TUNING_BUDGET = 480.0
"""Seconds of a run that fine-tunes a pretrained encoder."""
LINEAR_SECONDS = 20.0
"""Time for the report's linear model of one output; what is best by then is taken."""
_AROUND = 30.0
"""Seconds for all but epochs: reading, measuring, evaluating, packing. Of a short budget at most half."""
_MARGIN = 0.93
"""Share of what is left that epochs are planned for: some take longer than those measured."""
_TUNING_EPOCHS = {"all": 3, "last": 4, "lora": 5, "none": 12}
"""Passes by what is trained of a pretrained encoder."""
_SMALL_SIDE = 16
"""Pixels up to which a picture is small: a digit, an icon."""


def fix_epochs(recipe: Recipe, seconds_per_epoch: float) -> tuple[Recipe, Decision | None]:
    """Fill in ``train.epochs`` if it is open.

    Args:
        recipe: planned: all but epochs decided.
        seconds_per_epoch: measured on this machine, validation included.

    Returns:
        the recipe with epochs, and the decision (``None`` if the recipe had them)
    """
    if recipe.train.epochs is not None:
        return recipe, None
    useful = _useful_epochs(recipe)
    seconds = recipe.train.budget or DEFAULT_BUDGET
    training = max(seconds / 2, (seconds - _AROUND) * _MARGIN)
    affordable = max(1, int(training / max(seconds_per_epoch, 1e-9)))
    epochs = min(useful, affordable)
    reason = f"{seconds_per_epoch:.2g} s each, measured; "
    if epochs == useful:
        reason += "more rarely helps such data"
    else:
        reason += f"{training:.0f} s of the budget of {seconds:.0f} s are for training"
    train = msgspec.structs.replace(recipe.train, epochs=epochs)
    return msgspec.structs.replace(recipe, train=train), Decision("train.epochs", str(epochs), reason)


def is_small(inputs: tuple[InputField, ...]) -> bool:
    """Tell whether all pictures are small."""
    return all(_side(field) <= _SMALL_SIDE for field in inputs if isinstance(field, ImageField))


def _side(field: ImageField) -> int:
    """Return the shorter side of prepared pictures in pixels."""
    if isinstance(field.size, tuple):
        return min(field.size)
    return _SMALL_SIDE + 1 if field.size is None else field.size


def _useful_epochs(recipe: Recipe) -> int:
    """Return the number of epochs beyond which such a network rarely becomes better."""
    inputs = recipe.inputs or ()
    kinds = [type(field.encoder) for field in inputs]
    if ResnetEncoder in kinds or CnnEncoder in kinds:
        return 25 if is_small(inputs) else 60
    tuned = [field.encoder.tune for field in inputs if isinstance(field.encoder, PretrainedEncoder)]
    if tuned:
        return max(_TUNING_EPOCHS[tune] for tune in tuned)
    if set(kinds) == {BagEncoder}:
        return 10
    if any(isinstance(field, TextField) for field in inputs):
        return 12
    return 40 if RnnEncoder in kinds else 30
