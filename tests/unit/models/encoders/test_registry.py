from typing import get_args

import pytest

from yunmo.core import encoders as specs
from yunmo.core.errors import RecipeError
from yunmo.core.fields import FieldStatistics
from yunmo.models.encoders.registry import ENCODERS, build_encoder

PICTURE = FieldStatistics(name="photo", type="image", role="input", encode_version=1, count=1, shape=(8, 8, 3))


def test_every_specification_has_one_behaviour() -> None:
    assert set(ENCODERS) == set(get_args(specs.Encoder))


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (specs.CnnEncoder(layers=(specs.ConvLayer(conv=2, kernel=9),)), "no pixel is left"),
        (specs.CnnEncoder(layers=(specs.DenseLayer(dense=2), specs.PoolLayer(pool="max"))), "no map"),
        (specs.ResnetEncoder(filters=(2, 2, 2, 2, 2)), "5 filters but 4 blocks"),
        (specs.ResnetEncoder(filters=(2, 2, 2, 2, 2), blocks=(0,)), "can't be halved"),
    ],
)
def test_an_encoder_that_does_not_fit_the_picture_is_refused(spec: specs.Encoder, word: str) -> None:
    with pytest.raises(RecipeError, match=word) as caught:
        build_encoder(spec, PICTURE)
    assert "photo" in str(caught.value)
