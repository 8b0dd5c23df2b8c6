import pytest
import torch
from torch import nn

from yunmo.models.encoders.whitening import Whitening


def _pictures(seed: int = 0) -> torch.Tensor:
    """Smooth pictures, whose neighboring pixels and channels are much alike."""
    torch.manual_seed(seed)
    gray = nn.AvgPool2d(5, stride=1)(torch.randn(200, 1, 20, 20))
    return 5 * gray + 0.5 * torch.randn(200, 3, 16, 16)


@pytest.mark.parametrize(("kernel", "stride", "side"), [(3, 1, 16), (4, 2, 8)])
def test_answers_are_uncorrelated_and_equally_strong(kernel: int, stride: int, side: int) -> None:
    pictures = _pictures()
    stem = Whitening(3, 16, kernel=kernel, stride=stride)
    stem.fit(pictures)
    answers = stem(pictures)
    assert answers.shape == (200, 16, side, side)
    assert torch.allclose(answers[:, :8], -answers[:, 8:])
    values = answers[:, :8].transpose(0, 1).flatten(1)
    second = values @ values.T / values.shape[1]
    raw = pictures.transpose(0, 1).flatten(1)
    raw_second = raw @ raw.T / raw.shape[1]
    assert raw_second[0, 1] / raw_second[0, 0] > 0.5
    assert torch.allclose(second, torch.eye(8), atol=0.15)


def test_filters_are_those_of_the_sample_and_are_not_trained() -> None:
    first, again, other = (Whitening(3, 32, kernel=3, stride=1) for _ in range(3))
    first.fit(_pictures())
    again.fit(_pictures())
    other.fit(_pictures(seed=1))
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
    assert not list(first.parameters())
    assert set(first.state_dict()) == {"weight"}


def test_there_are_no_more_filters_than_directions() -> None:
    stem = Whitening(1, 32, kernel=3, stride=1)
    assert stem.features == 18
    stem.fit(torch.zeros(10, 1, 8, 8))  # blank pictures have no direction at all
    assert torch.isfinite(stem.weight).all()
