"""Field specifications: the typed inputs and outputs of a model. Behaviour is in ``data/fields``.

A new field type is one class here, named in the unions at the end, and one file of behaviour. ``None`` stands for
"decided from the data"; in a resolved recipe it does not occur where a decision was needed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from yunmo.core.encoders import (
    CategoryEncoder,
    ImageEncoder,
    Positive,
    Probability,
    ScalarEncoder,
    SequenceEncoder,
    TextEncoder,
    VectorEncoder,
)
from yunmo.core.pretrained import Pretrained
from yunmo.core.schema import Spec
from yunmo.core.tokenizers import Tokenizer

Scale = Literal["standard", "min_max", "none"]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
JOINED_NUMBERS = "numbers[]"
"""The tensor, float32 [N, K], in which a graph takes K number fields at once: one tensor each would cost it more than a
small network's own work."""
# Not tuple[int, int]: msgspec 0.22 crashes in garbage collection on a fixed-length tuple within a union.
HeightWidth = Annotated[tuple[Positive, ...], Meta(min_length=2, max_length=2)]

_COLUMN = "column of the data; null: the column that has the field's name"
_SCALE = "standard (mean 0, deviation 1), min_max (0 to 1) or none; part of the network, fitted on training data"


class Outliers(Spec, frozen=True):
    """What to do with noise: values far from the others of their column, judged on training data."""

    method: Annotated[
        Literal["iqr", "z_score"],
        Meta(
            description="distance from the quartiles in interquartile ranges, or from the mean in standard deviations"
        ),
    ] = "iqr"
    threshold: Annotated[
        float, Meta(gt=0, description="how many of them are still allowed (usual: iqr 1.5, z_score 3)")
    ] = 1.5
    action: Annotated[
        Literal["clip", "drop"], Meta(description="move to the limit, or leave the row out of training")
    ] = "clip"


class Augment(Spec, frozen=True):
    """Random changes of training pictures, made on whole batches as tensor operations."""

    flip: Annotated[bool, Meta(description="mirror left-right, half of the pictures")] = False
    alternate: Annotated[bool, Meta(description="flip: each picture in every other epoch instead of at random")] = False
    vertical_flip: Annotated[bool, Meta(description="mirror top-bottom, half of the pictures")] = False
    crop: Annotated[int, Meta(ge=0, description="pad by so many pixels (reflected), then cut out at random")] = 0
    rotate: Annotated[float, Meta(ge=0, le=180, description="turn by up to so many degrees either way")] = 0.0
    scale: Annotated[float, Meta(ge=0, lt=1, description="grow or shrink by up to this share")] = 0.0
    shift: Annotated[float, Meta(ge=0, lt=1, description="move by up to this share of height and width")] = 0.0
    cutout: Annotated[int, Meta(ge=0, description="blank a random square of so many pixels a side")] = 0
    brightness: Annotated[float, Meta(ge=0, lt=1, description="brighter or darker by up to this share")] = 0.0


class ImageField(Spec, frozen=True, tag_field="type", tag="image"):
    """A picture: JPEG, PNG, WebP, BMP or GIF bytes, or an array of pixels (height, width[, channels]) of uint8."""

    name: Name
    column: Annotated[str | None, Meta(description=_COLUMN)] = None
    size: Annotated[
        Positive | HeightWidth | None, Meta(description="pixels: one number, or [height, width]; null: from the data")
    ] = None
    color: Annotated[Literal["rgb", "gray"] | None, Meta(description="null: gray if every picture is gray")] = None
    resize: Annotated[
        Literal["stretch", "crop", "pad"],
        Meta(description="how another shape gets the size: stretched, cut in the middle, or padded with black"),
    ] = "stretch"
    rotate: Annotated[Literal[0, 90, 180, 270], Meta(description="degrees counter-clockwise, for every picture")] = 0
    flip: Annotated[Literal["none", "horizontal", "vertical"], Meta(description="mirror every picture")] = "none"
    missing: Annotated[
        Literal["mean", "drop"],
        Meta(
            description="what stands for a missing picture (mean: one of the mean color of the training pictures), or "
            "drop: leave the row out"
        ),
    ] = "drop"
    scale: Annotated[Scale, Meta(description=_SCALE)] = "standard"
    augment: Annotated[Augment | None, Meta(description="null: decided from the pictures")] = None
    average_flips: Annotated[
        bool | None, Meta(description="answer with the mean over the picture and its mirror image")
    ] = None
    encoder: Annotated[ImageEncoder | None, Meta(description="null: a residual network fitted to data and budget")] = (
        None
    )


class NumberField(Spec, frozen=True, tag_field="type", tag="number"):
    """A number. As an output it makes the task a regression."""

    name: Name
    column: Annotated[str | None, Meta(description=_COLUMN)] = None
    missing: Annotated[
        Literal["mean", "median", "most_frequent", "constant", "drop"],
        Meta(description="what stands for a missing cell (learned from training data), or drop: leave the row out"),
    ] = "median"
    constant: Annotated[float, Meta(description="the value for missing: constant")] = 0.0
    outliers: Annotated[Outliers | None, Meta(description="null: keep them")] = None
    scale: Annotated[Scale, Meta(description=_SCALE)] = "standard"
    encoder: Annotated[ScalarEncoder | None, Meta(description="null: flat")] = None


class CategoryField(Spec, frozen=True, tag_field="type", tag="category"):
    """One of a set of names. As an output it makes the task a classification."""

    name: Name
    column: Annotated[str | None, Meta(description=_COLUMN)] = None
    categories: Annotated[
        tuple[str, ...] | None, Meta(description="in order; null: those of the training data, sorted")
    ] = None
    missing: Annotated[
        Literal["most_frequent", "constant", "drop"],
        Meta(
            description="what stands for a missing cell (constant: the category 'unknown'), or drop: leave the row out"
        ),
    ] = "constant"
    encoder: Annotated[
        CategoryEncoder | None, Meta(description="null: one_hot up to 16 categories, embedding beyond")
    ] = None


class DateField(Spec, frozen=True, tag_field="type", tag="date"):
    """A date, or date and time, as numbers: year, month, day, weekday, hour, days since 1970."""

    name: Name
    column: Annotated[str | None, Meta(description=_COLUMN)] = None
    format: Annotated[str | None, Meta(description="strptime format; null: the one that reads every cell")] = None
    missing: Annotated[
        Literal["median", "drop"], Meta(description="what stands for a missing cell, or drop: leave the row out")
    ] = "median"
    scale: Annotated[Scale, Meta(description=_SCALE)] = "standard"
    encoder: Annotated[ScalarEncoder | None, Meta(description="null: flat")] = None


class SequenceField(Spec, frozen=True, tag_field="type", tag="sequence"):
    """Steps of numbers: an array (steps, channels); shorter ones are padded at the end and masked."""

    name: Name
    column: Annotated[str | None, Meta(description=_COLUMN)] = None
    length: Annotated[Positive | None, Meta(description="steps kept; null: the longest of the training data")] = None
    scale: Annotated[Scale, Meta(description=_SCALE)] = "standard"
    encoder: Annotated[SequenceEncoder | None, Meta(description="null: a GRU")] = None


class VectorField(Spec, frozen=True, tag_field="type", tag="vector"):
    """A fixed number of numbers: an array (length,)."""

    name: Name
    column: Annotated[str | None, Meta(description=_COLUMN)] = None
    scale: Annotated[Scale, Meta(description=_SCALE)] = "standard"
    encoder: Annotated[VectorEncoder | None, Meta(description="null: flat")] = None


class Embeddings(Spec, frozen=True):
    """Vectors of words that were learned elsewhere, to begin with: word2vec's, GloVe's or fastText's text format."""

    file: Annotated[
        str,
        Meta(
            min_length=1,
            description="file of `word number number …` lines, relative to the recipe's folder; may be packed (.gz)",
        ),
    ]
    frozen: Annotated[
        bool, Meta(description="the vectors stay as they are, also the random ones of other words; false: learned on")
    ] = False
    digest: Annotated[
        str | None, Meta(description="SHA-256 of the file's bytes; written when the file is sent to the service")
    ] = None
    size: Annotated[Positive | None, Meta(description="length of a vector; written when the recipe is resolved")] = None


class TextField(Spec, frozen=True, tag_field="type", tag="text"):
    """A text in any language and script, as words, characters, pieces of words, or n-grams of them."""

    name: Name
    column: Annotated[str | None, Meta(description=_COLUMN)] = None
    normalize: Annotated[
        Literal["nfkc", "nfc", "none"],
        Meta(
            description="Unicode form; nfkc: full-width letters and other variants become the usual ones, too; a "
            "pretrained tokenizer has rules of its own instead"
        ),
    ] = "nfkc"
    lowercase: Annotated[bool, Meta(description="upper and lower case are the same; likewise")] = True
    tokenizer: Annotated[
        Tokenizer | None,
        Meta(description="null: n-grams if the encoder is bag or open, its own if it is pretrained, else words"),
    ] = None
    length: Annotated[
        Annotated[int, Meta(ge=1, le=8192)] | None,
        Meta(description="tokens kept; null: enough for 99 of 100 training texts, at most 1024 (256 in order)"),
    ] = None
    missing: Annotated[
        Literal["empty", "drop"], Meta(description="a missing text counts as an empty one, or drop: leave the row out")
    ] = "empty"
    embedding: Annotated[
        Positive, Meta(description="length of the learned vector of each token, for other encoders than bag")
    ] = 128
    embeddings: Annotated[
        Embeddings | None,
        Meta(
            description="vectors to begin with, for the tokenizers words and characters and other encoders than bag; "
            "null: random ones"
        ),
    ] = None
    dropout: Annotated[
        Probability, Meta(description="share of tokens left out while training, for other encoders than bag")
    ] = 0.0
    encoder: Annotated[TextEncoder | None, Meta(description="null: bag")] = None

    @property
    def vector_size(self) -> int:
        """Length of a token's vector."""
        given = self.embeddings.size if self.embeddings is not None else None
        return given or self.embedding


InputField = ImageField | NumberField | CategoryField | DateField | SequenceField | VectorField | TextField
"""What a recipe may have as an input."""


class CategoryOutput(Spec, frozen=True, tag_field="type", tag="category"):
    """The model names one of a set of classes, with a probability for each."""

    name: Name
    column: Annotated[str | None, Meta(description=_COLUMN)] = None
    categories: Annotated[
        tuple[str, ...] | None, Meta(description="in order; null: those of the training data, sorted")
    ] = None
    label_smoothing: Annotated[Probability | None, Meta(description="share of the target spread over all classes")] = (
        None
    )
    class_weights: Annotated[
        Literal["none", "balanced"] | dict[str, float],
        Meta(description="weight of each class in the loss; balanced: the rarer, the more"),
    ] = "none"


class NumberOutput(Spec, frozen=True, tag_field="type", tag="number"):
    """The model estimates a number."""

    name: Name
    column: Annotated[str | None, Meta(description=_COLUMN)] = None
    loss: Annotated[
        Literal["mse", "mae", "huber"], Meta(description="what training makes small, on the scaled target")
    ] = "mse"
    scale: Annotated[Scale, Meta(description=_SCALE)] = "standard"


class LabelsOutput(Spec, frozen=True, tag_field="type", tag="labels"):
    """The model says which of a set of labels hold, any number of them at once, with a probability for each.

    A cell holds them joined: ``sport;politics``. An empty one holds none.
    """

    name: Name
    column: Annotated[str | None, Meta(description=_COLUMN)] = None
    separator: Annotated[
        str,
        Meta(pattern=r'^[^"\r\n]$', description="the one character between labels; a label that has it is in quotes"),
    ] = ";"
    categories: Annotated[
        tuple[str, ...] | None, Meta(description="the labels, in order; null: those of the training data, sorted")
    ] = None
    threshold: Annotated[
        Annotated[float, Meta(gt=0, lt=1)] | None,
        Meta(
            description="probability from which a label holds; null: the one with the best F1 (micro) on the "
            "validation rows, or 0.5 if those are too few"
        ),
    ] = None


OutputField = CategoryOutput | NumberOutput | LabelsOutput
"""What a recipe may have as an output."""

Datatype = Literal[
    "bool",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "float16",
    "float32",
    "float64",
    "string",
]
_DATATYPE = "type of the elements"
_SHAPE = "size of each axis but the batch; null: any size"
Axis = Annotated[int, Meta(ge=0)]


class TensorField(Spec, frozen=True, tag_field="type", tag="tensor"):
    """A tensor as it is: an input of an imported ONNX file. Nothing is learned of it, so no recipe has one."""

    name: Name
    datatype: Annotated[Datatype, Meta(description=_DATATYPE)] = "float32"
    shape: Annotated[tuple[Axis | None, ...], Meta(description=_SHAPE)] = ()
    column: Annotated[str | None, Meta(description=_COLUMN)] = None


class TensorOutput(Spec, frozen=True, tag_field="type", tag="tensor"):
    """A tensor as the graph of an imported ONNX file answers it. No recipe has one."""

    name: Name
    datatype: Annotated[Datatype, Meta(description=_DATATYPE)] = "float32"
    shape: Annotated[tuple[Axis | None, ...], Meta(description=_SHAPE)] = ()
    column: Annotated[str | None, Meta(description=_COLUMN)] = None


ModelInput = InputField | TensorField
"""What a bundle may have as an input."""
ModelOutput = OutputField | TensorOutput
"""What a bundle may have as an output."""


class FieldStatistics(Spec, frozen=True):
    """All that training learned of one field's data: the only form in which it reaches the network and the bundle.

    Tuples have one entry per channel (image), part (date), column (sequence, vector) or one in all (number).
    """

    name: str
    type: str
    role: Literal["input", "output"]
    encode_version: int
    count: int
    missing: int = 0
    mean: tuple[float, ...] = ()
    deviation: tuple[float, ...] = ()
    minimum: tuple[float, ...] = ()
    maximum: tuple[float, ...] = ()
    fill: float | str | None = None
    low: float | None = None
    high: float | None = None
    categories: tuple[str, ...] = ()
    category_counts: tuple[int, ...] = ()
    shape: tuple[int, ...] = ()
    """Shape of one encoded value without the batch: (height, width, channels), (steps, channels), (parts,), (tokens,)
    or ()."""
    format: str | None = None
    pieces: tuple[str, ...] = ()
    """Text: the tokens in the order of their numbers, the first of which is 2 (0: padding, 1: unknown); those of a
    pretrained tokenizer have its own numbers, the first of which is 0."""
    merges: tuple[str, ...] = ()
    """Text in BPE pieces: the pairs that are joined, in order, as ``left right``."""
    rules: tuple[str, ...] = ()
    """Text: libraries whose rules made its words, each with the version that training had."""
    scores: tuple[float, ...] = ()
    """Text in Unigram pieces: the logarithm of each one's probability."""
    buckets: tuple[int, ...] = ()
    """Text as n-grams: the hashes that are tokens, in the order of their numbers, the first of which is 1."""
    bucket_counts: tuple[int, ...] = ()
    """Training texts that have each."""
    pretrained: Pretrained | None = None
    """Text with a pretrained encoder: what it is."""
