import pytest
import torch
from torch import nn

from yunmo.core.encoders import ResnetEncoder as Spec
from yunmo.core.fields import FieldStatistics
from yunmo.models.encoders.resnet import ResnetEncoder


def _encoder(**spec: object) -> ResnetEncoder:
    picture = FieldStatistics(name="photo", type="image", role="input", encode_version=1, count=1, shape=(16, 16, 3))
    torch.manual_seed(0)
    return ResnetEncoder(Spec(**{"filters": (8, 8, 12), "blocks": (0, 1, 1), **spec}), picture)  # type: ignore[arg-type]


@pytest.mark.parametrize("stem", ["conv", "patch", "whitened", "whitened_half"])
@pytest.mark.parametrize("block", ["one", "two"])
def test_every_stem_and_block_gives_features(stem: str, block: str) -> None:
    encoder = _encoder(stem=stem, block=block, blocks=(1, 1, 1))
    pictures = torch.randn(5, 3, 16, 16)
    encoder.fit(pictures)
    features = encoder(pictures)
    assert features.shape == (5, encoder.features) == (5, 12)
    assert features.std() > 0


def test_identity_passes_channels_on() -> None:
    encoder = _encoder(blocks=(0, 0, 0), start="identity")
    first, second = [
        module for module in encoder.modules() if isinstance(module, nn.Conv2d) and module.in_channels == 8
    ]
    maps = torch.randn(2, 8, 6, 6)
    assert torch.equal(first(maps), maps)
    assert torch.equal(second(maps)[:, :8], maps)
    assert second(maps)[:, 8:].std() > 0


def test_norms_without_scale_learn_only_a_shift() -> None:
    trained = {
        name for name, value in _encoder(norm_scale=False, block="one").named_parameters() if value.requires_grad
    }
    norms = {name for name, module in _encoder().named_modules() if isinstance(module, nn.BatchNorm2d)}
    assert norms
    assert {f"{name}.bias" for name in norms} & trained
    assert not {f"{name}.weight" for name in norms} & trained


def test_a_block_of_two_can_leave_its_beginning_as_the_identity_behind() -> None:
    encoder = _encoder(blocks=(0, 1, 0), norm_scale=False)
    zero = [
        name for name, value in encoder.named_parameters() if value.ndim == 1 and not value.any() and "weight" in name
    ]
    assert len(zero) == 1
    assert dict(encoder.named_parameters())[zero[0]].requires_grad
