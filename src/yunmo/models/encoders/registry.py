"""Which class behaves as which encoder specification: the one row a new encoder needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yunmo.core import encoders as specs
from yunmo.core.fields import FieldStatistics
from yunmo.models.encoders.bag import BagEncoder
from yunmo.models.encoders.base import Encoder
from yunmo.models.encoders.category import EmbeddingEncoder, OneHotEncoder, OrdinalEncoder
from yunmo.models.encoders.cnn import CnnEncoder
from yunmo.models.encoders.flat import FlatEncoder
from yunmo.models.encoders.mlp import MlpEncoder
from yunmo.models.encoders.pretrained import PretrainedEncoder
from yunmo.models.encoders.resnet import ResnetEncoder
from yunmo.models.encoders.rnn import RnnEncoder
from yunmo.models.encoders.textcnn import TextCnnEncoder
from yunmo.models.encoders.transformer import TransformerEncoder

ENCODERS: dict[type[specs.Encoder], Callable[[Any, FieldStatistics], Encoder]] = {
    specs.ResnetEncoder: ResnetEncoder,
    specs.CnnEncoder: CnnEncoder,
    specs.RnnEncoder: RnnEncoder,
    specs.MlpEncoder: MlpEncoder,
    specs.FlatEncoder: FlatEncoder,
    specs.OneHotEncoder: OneHotEncoder,
    specs.OrdinalEncoder: OrdinalEncoder,
    specs.EmbeddingEncoder: EmbeddingEncoder,
    specs.BagEncoder: BagEncoder,
    specs.TextCnnEncoder: TextCnnEncoder,
    specs.TransformerEncoder: TransformerEncoder,
    specs.PretrainedEncoder: PretrainedEncoder,
}


def build_encoder(spec: specs.Encoder, statistics: FieldStatistics) -> Encoder:
    """Return a new, trainable encoder for a field.

    Raises:
        RecipeError: the specification does not fit the field's shape.
    """
    return ENCODERS[type(spec)](spec, statistics)
