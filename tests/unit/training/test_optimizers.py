from typing import get_args

import pytest
import torch
from torch import nn

from yunmo.core.recipe import Optimizer, TrainSpec
from yunmo.models.encoders.whitening import Whitening
from yunmo.training.muon import orthogonalized
from yunmo.training.optimizers import Optimizers


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(24, 1))


def _step(network: nn.Module, optimizers: Optimizers) -> float:
    torch.manual_seed(1)
    values = torch.randn(16, 1, 6, 6)
    loss = (network(values).squeeze(1) - values.mean((1, 2, 3)) * 5).square().mean()
    optimizers.zero_grad()
    loss.backward()
    optimizers.step()
    return float(loss.detach())


@pytest.mark.parametrize("name", get_args(Optimizer))
def test_every_optimizer_learns_and_resumes(name: str) -> None:
    spec = TrainSpec(optimizer=name, lr=0.01, weight_decay=0.01)  # type: ignore[arg-type]
    network = _network()
    optimizers = Optimizers(network, spec)
    losses = [_step(network, optimizers) for _ in range(20)]
    assert losses[-1] < losses[0] / 1.5
    other = _network()
    other.load_state_dict(network.state_dict())
    resumed = Optimizers(other, spec)
    resumed.restore(optimizers.state())
    _step(network, optimizers)
    _step(other, resumed)
    for one, two in zip(network.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_weight_decay_leaves_biases_and_norms_alone() -> None:
    network = _network()
    optimizers = Optimizers(network, TrainSpec(optimizer="sgd", lr=0.1, weight_decay=1.0))
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizers.step()
    changed = {name for name, parameter in network.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"0.weight", "3.weight", "6.weight"}


def test_muon_keeps_hidden_convolutions_at_their_length() -> None:
    network = _network()
    optimizers = Optimizers(network, TrainSpec(optimizer="muon", lr=1e-6))
    _step(network, optimizers)
    weights = dict(network.named_parameters())
    assert weights["3.weight"].norm().item() == pytest.approx(6**0.5, rel=1e-4)
    assert weights["0.weight"].norm().item() != pytest.approx(4**0.5, rel=1e-2)


def test_orthogonalized_brings_singular_values_together() -> None:
    torch.manual_seed(0)
    for shape in ((8, 30), (30, 8)):
        matrix = torch.randn(shape)
        values = torch.linalg.svdvals(orthogonalized(matrix))
        assert values.max() / values.min() < 3
        assert values.max() < 1.5


def test_the_rest_of_muon_has_rates_of_its_own() -> None:
    network = _network()
    spec = TrainSpec(optimizer="muon", lr=0.1, rest="nesterov", rest_lr=0.01, norm_lr=2.0, weight_decay=0.0)
    optimizers = Optimizers(network, spec)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    optimizers.set_rate(0.05)  # half of the highest: so are the others
    optimizers.step()
    moved = {name: (before[name] - value.detach()).mean().item() for name, value in network.named_parameters()}
    nesterov = 1.85
    assert moved["6.weight"] == pytest.approx(0.005 * nesterov, rel=1e-3)
    assert moved["6.bias"] == pytest.approx(0.005 * nesterov, rel=1e-3)
    assert moved["4.bias"] == pytest.approx(1.0 * nesterov, rel=1e-3)


def test_muon_trains_the_first_convolution_after_a_whitened_stem_and_no_frozen_weight() -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 4, 3), nn.MaxPool2d(2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 1)]
    network = nn.Sequential(Whitening(1, 8, kernel=3, stride=1), nn.Sequential(*layers))
    norm = layers[2]
    norm.weight.requires_grad_(False)
    network[0].fit(torch.randn(20, 1, 6, 6))
    optimizers = Optimizers(network, TrainSpec(optimizer="muon", lr=1e-6))
    before = network[0].weight.clone()
    _step(network, optimizers)
    assert layers[0].weight.norm().item() == pytest.approx(2.0, rel=1e-4)
    assert torch.equal(norm.weight, torch.ones(4))
    assert torch.equal(network[0].weight, before)
