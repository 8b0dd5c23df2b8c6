from __future__ import annotations

import pytest
import torch

from yunmo.core.encoders import BagEncoder as Spec
from yunmo.core.fields import FieldStatistics
from yunmo.core.tokenizers import HASHES
from yunmo.models.encoders.bag import BagEncoder

STATISTICS = FieldStatistics(
    name="x",
    type="text",
    role="input",
    encode_version=1,
    count=9,
    shape=(6,),
    buckets=(3, 8, HASHES + 1, HASHES + 7, HASHES + 9),
    bucket_counts=(9, 4, 9, 2, 1),
)


def test_words_and_characters_have_weighted_means_apart() -> None:
    encoder = BagEncoder(Spec(size=3), STATISTICS).eval()
    assert encoder.features == 6
    found = encoder(torch.tensor([[1, 2, 4, 5, 0, 0]], dtype=torch.int32))
    vectors = encoder.vectors.weight
    rarity = [(torch.tensor(10.0) / (1 + count)).log() + 1 for count in STATISTICS.bucket_counts]
    words = rarity[0] * vectors[1] + rarity[1] * vectors[2]
    characters = rarity[3] * vectors[4] + rarity[4] * vectors[5]
    expected = [words / (rarity[0] ** 2 + rarity[1] ** 2).sqrt(), characters / (rarity[3] ** 2 + rarity[4] ** 2).sqrt()]
    torch.testing.assert_close(found[0], torch.cat(expected))


def test_padding_and_its_length_change_nothing() -> None:
    encoder = BagEncoder(Spec(size=3), STATISTICS).eval()
    short = encoder(torch.tensor([[2, 5]], dtype=torch.int32))
    long = encoder(torch.tensor([[2, 5, 0, 0, 0, 0, 0]], dtype=torch.int32))
    torch.testing.assert_close(short, long)
    assert not encoder(torch.zeros(2, 6, dtype=torch.int32)).any()


def test_without_rarity_all_weigh_the_same() -> None:
    encoder = BagEncoder(Spec(size=2, rarity=False), STATISTICS).eval()
    found = encoder(torch.tensor([[1, 2]], dtype=torch.int32))
    torch.testing.assert_close(found[0, :2], (encoder.vectors.weight[1] + encoder.vectors.weight[2]) / 2**0.5)


def test_tokens_in_order_are_one_group() -> None:
    pieces = FieldStatistics(
        name="x", type="text", role="input", encode_version=1, count=2, pieces=("a", "b"), shape=(3,)
    )
    encoder = BagEncoder(Spec(size=2), pieces)
    assert encoder.features == 2
    assert encoder.vectors.num_embeddings == 4


@pytest.mark.parametrize("keys", [{"token_dropout": 0.5}, {"dropout": 0.5}])
def test_dropout_is_of_training_only(keys: dict[str, float]) -> None:
    torch.manual_seed(0)
    encoder = BagEncoder(Spec(size=8, **keys), STATISTICS)
    values = torch.tensor([[1, 2, 3, 4, 5, 0]] * 4, dtype=torch.int32)
    trained = encoder(values)
    assert not torch.equal(trained[0], trained[1])
    encoder.eval()
    assert torch.equal(encoder(values)[0], encoder(values)[1])
