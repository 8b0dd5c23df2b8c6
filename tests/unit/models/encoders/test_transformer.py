from __future__ import annotations

import itertools
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the field's usual name
from torch import Tensor

from yunmo.core.encoders import TransformerEncoder as Spec
from yunmo.core.errors import RecipeError
from yunmo.core.fields import FieldStatistics
from yunmo.models.encoders.pooling import AttentionPool
from yunmo.models.encoders.transformer import TransformerEncoder, attention, rotated, waves

SEQUENCE = FieldStatistics(name="x", type="sequence", role="input", encode_version=1, count=2, shape=(6, 8))


def values(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def masked(batch: Tensor, length: Tensor) -> Tensor:
    return batch * (torch.arange(batch.shape[1]) < length[:, None]).unsqueeze(2)


@pytest.mark.parametrize("hide", [False, True])
def test_attention_is_that_of_torch(hide: bool) -> None:
    queries, keys, given = values(3, 2, 4, 5, 6).unbind(0)
    hidden = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 1]], dtype=torch.bool)[:, None, None] if hide else None
    expected = F.scaled_dot_product_attention(queries, keys, given, attn_mask=None if hidden is None else ~hidden)
    torch.testing.assert_close(attention(queries, keys, given, hidden), expected)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_layer_is_that_of_torch(norm: str) -> None:
    encoder = TransformerEncoder(
        Spec(heads=2, layers=1, feed_forward=16, norm=norm, activation="relu"), SEQUENCE
    ).eval()
    (mine,) = encoder.layers
    other = torch.nn.TransformerEncoderLayer(8, 2, 16, norm_first=norm == "pre", batch_first=True).eval()
    other.load_state_dict(
        {
            "self_attn.in_proj_weight": mine.queries_keys_values.weight,
            "self_attn.in_proj_bias": mine.queries_keys_values.bias,
            "self_attn.out_proj.weight": mine.joined.weight,
            "self_attn.out_proj.bias": mine.joined.bias,
            **{f"linear1.{key}": value for key, value in mine.forward_network[0].state_dict().items()},
            **{f"linear2.{key}": value for key, value in mine.forward_network[3].state_dict().items()},
            **{f"norm1.{key}": value for key, value in mine.norms[0].state_dict().items()},
            **{f"norm2.{key}": value for key, value in mine.norms[1].state_dict().items()},
        }
    )
    batch = values(2, 6, 8)
    torch.testing.assert_close(mine(batch, None, None), other(batch), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("positions", "norm", "pool"),
    [
        *itertools.product(("sinusoidal", "learned", "rotary"), ("pre", "post"), ("mean",)),
        ("rotary", "pre", "max"),
        ("rotary", "pre", "attention"),
    ],
)
def test_padding_changes_nothing(positions: str, norm: str, pool: str) -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(Spec(heads=2, positions=positions, norm=norm, pool=pool), SEQUENCE).eval()
    length = torch.tensor([4, 1, 0])
    short = masked(values(3, 4, 8), length)
    long = torch.cat((short, torch.full((3, 2, 8), 7.0)), 1)
    found = encoder(short, length)
    assert found.shape == (3, encoder.features)
    assert found.isfinite().all()
    torch.testing.assert_close(encoder(long, length), found)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "rotary"])
def test_positions_tell_the_order(positions: str) -> None:
    torch.manual_seed(0)
    encoder = TransformerEncoder(Spec(heads=2, positions=positions), SEQUENCE).eval()
    batch = values(1, 6, 8)
    assert not torch.allclose(encoder(batch), encoder(batch.flip(1)), atol=1e-5)


def test_rotary_products_depend_on_the_distance_alone() -> None:
    query, key = values(2, 1, 1, 1, 8).unbind(0)
    cosine, sine = waves(10, 8, query)

    def product(place: int, other: int) -> float:
        turned = rotated(query, cosine[place], sine[place]) @ rotated(key, cosine[other], sine[other]).transpose(2, 3)
        return float(turned)

    assert product(2, 5) == pytest.approx(product(6, 9), abs=1e-5)
    assert product(2, 5) != pytest.approx(product(5, 2), abs=1e-3)
    assert product(3, 3) == pytest.approx(float((query * key).sum()), abs=1e-5)


def test_waves_are_those_of_the_paper() -> None:
    cosine, sine = waves(4, 6, torch.zeros(1))
    assert sine[3, 0] == pytest.approx(math.sin(3))
    assert cosine[3, 1] == pytest.approx(math.cos(3 / 10_000 ** (1 / 3)))


def test_attention_pooling_is_a_mean_with_weights() -> None:
    torch.manual_seed(0)
    pool = AttentionPool(8)
    states, length = values(2, 5, 8), torch.tensor([5, 2])
    scores = pool.score(pool.hidden(states).tanh())[1, :2, 0].softmax(0)
    torch.testing.assert_close(pool(states, length)[1], (scores[:, None] * states[1, :2]).sum(0))


@pytest.mark.parametrize(
    ("spec", "word"), [(Spec(heads=3), "3 heads"), (Spec(heads=8), "even size"), (Spec(size=10, heads=4), "4 heads")]
)
def test_sizes_that_do_not_fit_are_refused(spec: Spec, word: str) -> None:
    with pytest.raises(RecipeError, match=word) as caught:
        TransformerEncoder(spec, SEQUENCE)
    assert caught.value.remedy


def test_another_size_is_projected() -> None:
    assert TransformerEncoder(Spec(size=12, heads=2), SEQUENCE)(values(2, 6, 8)).shape == (2, 12)
