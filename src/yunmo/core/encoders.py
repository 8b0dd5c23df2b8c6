"""Encoder specifications: what turns one field's tensor into a feature vector. Behaviour is in ``models/encoders``.

A new encoder is one class here, named in the unions at the end, and one file of behaviour.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from yunmo.core.schema import Spec

Activation = Literal["relu", "gelu", "silu", "tanh", "sigmoid"]
Positive = Annotated[int, Meta(ge=1)]
Probability = Annotated[float, Meta(ge=0, lt=1)]
PositiveFloat = Annotated[float, Meta(gt=0)]
NotNegative = Annotated[float, Meta(ge=0)]


class ConvLayer(Spec, frozen=True, tag_field="layer", tag="conv"):
    """A 2-D convolution, then batch norm, activation and dropout. Written ``{conv: 32, kernel: 3}`` in recipes."""

    conv: Annotated[Positive, Meta(description="number of filters")]
    kernel: Annotated[Positive, Meta(description="height and width of a filter")] = 3
    stride: Annotated[Positive, Meta(description="step between two places of the filter")] = 1
    padding: Annotated[
        Literal["same", "valid"] | int, Meta(description="'same' (size kept at stride 1), 'valid' (none) or pixels")
    ] = "valid"
    activation: Annotated[Activation | None, Meta(description="null for none")] = "relu"
    batch_norm: Annotated[bool, Meta(description="normalize over the batch before the activation")] = False
    dropout: Annotated[Probability, Meta(description="share of values set to 0 while training")] = 0.0


class PoolLayer(Spec, frozen=True, tag_field="layer", tag="pool"):
    """A 2-D pooling. Written ``{pool: max, size: 2}`` in recipes."""

    pool: Annotated[Literal["max", "average"], Meta(description="what is kept of a window")]
    size: Annotated[Positive, Meta(description="height and width of the window")] = 2
    stride: Annotated[Positive | None, Meta(description="null for the window's size")] = None


class DenseLayer(Spec, frozen=True, tag_field="layer", tag="dense"):
    """A fully connected layer. Written ``{dense: 128}`` in recipes; what comes before is flattened."""

    dense: Annotated[Positive, Meta(description="number of units")]
    activation: Annotated[Activation | None, Meta(description="null for none")] = "relu"
    dropout: Annotated[Probability, Meta(description="share of values set to 0 while training")] = 0.0


Layer = ConvLayer | PoolLayer | DenseLayer
LAYER_KEYS = ("conv", "pool", "dense")


class CnnEncoder(Spec, frozen=True, tag_field="type", tag="cnn"):
    """A convolutional network layer by layer; its last map is flattened."""

    layers: Annotated[tuple[Layer, ...], Meta(min_length=1, description="layers in order")]


class ResnetEncoder(Spec, frozen=True, tag_field="type", tag="resnet"):
    """A small residual convolutional network (ResNet-9 like): the default for pictures.

    A stem, then stages that each convolve, halve height and width, and go on with blocks. Every convolution is followed
    by a batch norm and an activation.
    """

    filters: Annotated[
        tuple[Positive, ...], Meta(min_length=1, max_length=8, description="filters of the stem and of each stage")
    ] = (32, 64, 128, 256)
    blocks: Annotated[
        tuple[Annotated[int, Meta(ge=0, le=8)], ...],
        Meta(min_length=1, max_length=8, description="blocks after the stem and each stage; one number for all"),
    ] = (0, 1, 0, 1)
    block: Annotated[
        Literal["two", "one"],
        Meta(description="convolutions of a block, whose result is added to what came in"),
    ] = "two"
    stem: Annotated[
        Literal["conv", "patch", "whitened", "whitened_half"],
        Meta(
            description="conv: learned, 3x3 at full size; patch: likewise, but first fold 2x2 pixels into channels, "
            "which halves the size; whitened: 3x3 filters computed from training pictures, which make their patches "
            "uncorrelated (at most 18 for each channel); whitened_half: likewise 4x4, and halves the size"
        ),
    ] = "conv"
    start: Annotated[
        Literal["random", "identity"],
        Meta(description="how stages begin; identity: their first filters pass the channels on"),
    ] = "random"
    norm_momentum: Annotated[
        float, Meta(gt=0, le=1, description="share of each batch in the running mean and variance of batch norms")
    ] = 0.1
    norm_scale: Annotated[bool, Meta(description="batch norms learn a scale; they always learn a shift")] = True
    activation: Annotated[Activation, Meta(description="after every convolution")] = "relu"
    pool: Annotated[Literal["max", "average"], Meta(description="what is kept of the last map")] = "max"
    dropout: Annotated[Probability, Meta(description="on the pooled features, while training")] = 0.0


class RnnEncoder(Spec, frozen=True, tag_field="type", tag="rnn"):
    """A recurrent network over the steps of a sequence or the tokens of a text; a picture's rows are its steps."""

    cell: Annotated[Literal["rnn", "lstm", "gru"], Meta(description="plain (Elman), LSTM or GRU")] = "gru"
    activation: Annotated[Literal["tanh", "relu"], Meta(description="of the plain cell; others have their own")] = (
        "tanh"
    )
    hidden: Annotated[Positive, Meta(description="size of the state")] = 128
    layers: Annotated[int, Meta(ge=1, le=8, description="stacked layers")] = 1
    bidirectional: Annotated[bool, Meta(description="also read from the end to the beginning")] = False
    project: Annotated[
        Positive | None, Meta(description="first a dense layer of so many units on each step (GELU, layer norm)")
    ] = None
    pool: Annotated[
        Literal["last", "mean", "max", "mean_max", "attention"],
        Meta(
            description="which states are kept: the last, or all pooled over time (mean_max: both; attention: a mean "
            "with learned weights)"
        ),
    ] = "last"
    dropout: Annotated[Probability, Meta(description="between layers and on the result, while training")] = 0.0


class BagEncoder(Spec, frozen=True, tag_field="type", tag="bag"):
    """The weighted mean of a learned vector of each n-gram of a text (fastText-like): the default for texts.

    Vectors of words and of characters are averaged apart, so neither drowns the other. Joulin et al. 2016.
    """

    size: Annotated[Positive, Meta(description="length of a vector")] = 64
    rarity: Annotated[
        bool, Meta(description="n-grams of few training texts weigh more (inverse document frequency)")
    ] = True
    token_dropout: Annotated[Probability, Meta(description="share of n-grams left out while training")] = 0.0
    dropout: Annotated[Probability, Meta(description="on the means, while training")] = 0.0


class TextCnnEncoder(Spec, frozen=True, tag_field="type", tag="textcnn"):
    """Convolutions over the tokens of a text, each kept where it is strongest. Kim 2014."""

    filters: Annotated[Positive, Meta(description="filters of each width")] = 100
    widths: Annotated[
        tuple[Annotated[int, Meta(ge=1, le=32)], ...],
        Meta(min_length=1, max_length=8, description="tokens that a filter sees"),
    ] = (3, 4, 5)
    activation: Annotated[Activation, Meta(description="after each filter")] = "relu"
    dropout: Annotated[Probability, Meta(description="on the result, while training")] = 0.5


class TransformerEncoder(Spec, frozen=True, tag_field="type", tag="transformer"):
    """Self-attention over the tokens of a text or the steps of a sequence. Vaswani et al. 2017."""

    size: Annotated[Positive | None, Meta(description="features of a step; null: as many as come in")] = None
    heads: Annotated[int, Meta(ge=1, le=64, description="attentions side by side; they share the size")] = 4
    layers: Annotated[int, Meta(ge=1, le=24, description="layers one after the other")] = 2
    feed_forward: Annotated[Positive, Meta(description="units of the network on each step")] = 256
    positions: Annotated[
        Literal["sinusoidal", "learned", "rotary"],
        Meta(description="how steps are told apart: waves or learned vectors added, or queries and keys turned"),
    ] = "rotary"
    norm: Annotated[Literal["pre", "post"], Meta(description="layer norms before each part, or after it")] = "pre"
    activation: Annotated[Activation, Meta(description="of the network on each step")] = "gelu"
    pool: Annotated[
        Literal["mean", "max", "attention"], Meta(description="over the steps; attention: a mean with learned weights")
    ] = "mean"
    dropout: Annotated[Probability, Meta(description="after each part and on attention, while training")] = 0.1


class LoraSpec(Spec, frozen=True):
    """Low-rank changes of matrices that stay as they are (Hu et al. 2021); added to them before the model is packed."""

    rank: Annotated[int, Meta(ge=1, le=256, description="of each change")] = 16
    alpha: Annotated[Positive, Meta(description="a change is multiplied by alpha / rank")] = 32
    dropout: Annotated[Probability, Meta(description="on what goes into a change, while training")] = 0.05
    matrices: Annotated[
        Literal["attention", "all"], Meta(description="which get one: queries and values, or all of every layer")
    ] = "all"


class PretrainedEncoder(Spec, frozen=True, tag_field="type", tag="pretrained"):
    """A pretrained Transformer from a local folder in Hugging Face's format, fine-tuned; its tokenizer comes with it.

    BERT, RoBERTa, DistilBERT, ELECTRA or MPNet, and what has their architecture, such as MiniLM.
    """

    folder: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=4096,
            description="with config.json, model.safetensors and tokenizer.json or vocab.txt; relative to the recipe's "
            "folder",
        ),
    ]
    digest: Annotated[
        Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")] | None,
        Meta(description="SHA-256 of what is read of the folder; written when it is sent, and another is refused"),
    ] = None
    tune: Annotated[
        Literal["all", "last", "lora", "none"],
        Meta(description="what is trained: all of it, its last layers, small changes of its matrices, or nothing"),
    ] = "all"
    last: Annotated[Positive, Meta(description="tune: last: layers that are trained")] = 2
    lora: Annotated[LoraSpec, Meta(description="tune: lora: the changes")] = LoraSpec()
    lr: Annotated[
        PositiveFloat | None,
        Meta(
            description="learning rate of what is trained of it, beside train.lr of all else; null: decided with tune"
        ),
    ] = None
    pool: Annotated[
        Literal["mean", "cls"], Meta(description="what is kept: the mean over the tokens, or the first token's state")
    ] = "mean"
    dropout: Annotated[Probability | None, Meta(description="within it, while training; null: as the folder says")] = (
        None
    )


class MlpEncoder(Spec, frozen=True, tag_field="type", tag="mlp"):
    """Fully connected layers over the flattened field."""

    hidden: Annotated[tuple[Positive, ...], Meta(min_length=1, description="units of each layer")] = (128, 128)
    activation: Annotated[Activation, Meta(description="after each layer")] = "relu"
    batch_norm: Annotated[bool, Meta(description="normalize over the batch before each activation")] = False
    dropout: Annotated[Probability, Meta(description="after each layer, while training")] = 0.0


class FlatEncoder(Spec, frozen=True, tag_field="type", tag="flat"):
    """The scaled values as they are, flattened: nothing is learned here."""

    clip: Annotated[PositiveFloat | None, Meta(description="largest distance from 0 of a scaled value")] = None


class OneHotEncoder(Spec, frozen=True, tag_field="type", tag="one_hot"):
    """One feature for each category, and one for 'unknown'."""


class OrdinalEncoder(Spec, frozen=True, tag_field="type", tag="ordinal"):
    """The category's index (label encoding) as one number, scaled to 0..1; for categories that have an order."""


class EmbeddingEncoder(Spec, frozen=True, tag_field="type", tag="embedding"):
    """A learned vector for each category."""

    size: Annotated[Positive, Meta(description="length of the vector")] = 8


ImageEncoder = ResnetEncoder | CnnEncoder | RnnEncoder | MlpEncoder | FlatEncoder
SequenceEncoder = RnnEncoder | TransformerEncoder | MlpEncoder | FlatEncoder
TextEncoder = BagEncoder | TextCnnEncoder | RnnEncoder | TransformerEncoder | PretrainedEncoder
VectorEncoder = MlpEncoder | FlatEncoder
ScalarEncoder = FlatEncoder | MlpEncoder
CategoryEncoder = OneHotEncoder | OrdinalEncoder | EmbeddingEncoder
Encoder = (
    ResnetEncoder
    | CnnEncoder
    | RnnEncoder
    | MlpEncoder
    | FlatEncoder
    | OneHotEncoder
    | OrdinalEncoder
    | EmbeddingEncoder
    | BagEncoder
    | TextCnnEncoder
    | TransformerEncoder
    | PretrainedEncoder
)
