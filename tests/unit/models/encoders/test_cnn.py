import torch

from yunmo.core import encoders as specs
from yunmo.core.fields import FieldStatistics
from yunmo.models.encoders.registry import build_encoder


def _picture(height: int, width: int) -> FieldStatistics:
    return FieldStatistics(name="p", type="image", role="input", encode_version=1, count=1, shape=(height, width, 3))


def test_the_seed_network_has_the_seeds_shape() -> None:
    spec = specs.CnnEncoder(
        layers=(specs.ConvLayer(conv=32), specs.ConvLayer(conv=64, kernel=5), specs.PoolLayer(pool="max"))
    )
    encoder = build_encoder(spec, _picture(32, 32))
    assert encoder.features == 64 * 13 * 13
    assert sum(weight.numel() for weight in encoder.parameters()) == 32 * 3 * 9 + 32 + 64 * 32 * 25 + 64


def test_features_are_as_announced_for_every_padding_kernel_and_stride() -> None:
    for padding in ("same", "valid", 2):
        for kernel in (2, 3, 4):
            for stride in (1, 2):
                layers = (
                    specs.ConvLayer(
                        conv=4, kernel=kernel, stride=stride, padding=padding, batch_norm=True, dropout=0.1
                    ),
                    specs.PoolLayer(pool="average", size=3, stride=2),
                )
                encoder = build_encoder(specs.CnnEncoder(layers=layers), _picture(13, 17)).eval()
                assert encoder(torch.randn(2, 3, 13, 17)).shape == (2, encoder.features)


def test_dense_layers_follow() -> None:
    layers = (specs.ConvLayer(conv=2), specs.DenseLayer(dense=7, dropout=0.5), specs.DenseLayer(dense=5))
    encoder = build_encoder(specs.CnnEncoder(layers=layers), _picture(6, 6))
    assert encoder(torch.randn(3, 3, 6, 6)).shape == (3, 5)


def test_residual_blocks_begin_as_identity_and_learn() -> None:
    for activation in ("relu", "silu"):
        spec = specs.ResnetEncoder(filters=(4, 8), blocks=(0, 1), activation=activation)
        encoder = build_encoder(spec, _picture(8, 8))
        encoder(torch.randn(16, 3, 8, 8)).square().sum().backward()
        last = [weight for name, weight in encoder.named_parameters() if "branch.1.1.weight" in name]
        assert len(last) == 1
        assert last[0].abs().max() == 0
        assert last[0].grad is not None
        assert last[0].grad.abs().min() > 0
