import torch

from yunmo.core.fields import FieldStatistics
from yunmo.core.recipe import recipe_from
from yunmo.models.network import Network
from yunmo.training.averaging import Lookahead

STATISTICS = {
    "age": FieldStatistics(name="age", type="number", role="input", encode_version=1, count=10),
    "price": FieldStatistics(name="price", type="number", role="output", encode_version=1, count=10),
}


def _network() -> Network:
    inputs = [{"name": "age", "type": "number", "encoder": {"type": "flat"}}]
    outputs = [{"name": "price", "type": "number"}]
    return Network(recipe_from({"data": {"train": "x"}, "inputs": inputs, "outputs": outputs}), STATISTICS)


def _fill(network: Network, value: float) -> None:
    for parameter in network.parameters():
        torch.nn.init.constant_(parameter, value)


def _value(network: Network) -> float:
    return float(next(network.parameters()).detach().flatten()[0])


def test_weights_return_to_their_mean_every_five_steps() -> None:
    network = _network()
    _fill(network, 0.0)
    lookahead = Lookahead(network, 0.9, steps=10)
    seen = []
    for step in range(10):
        _fill(network, float(step + 1))
        lookahead.update(network, step)
        seen.append(_value(network))
    first = 5 * (1 - 0.9**5 * 0.5**3)
    last = first * 0.9**5 + 10 * (1 - 0.9**5)
    expected = [1, 2, 3, 4, first, 6, 7, 8, 9, last]
    assert torch.allclose(torch.tensor(seen), torch.tensor(expected))


def test_a_restored_mean_goes_on_the_same() -> None:
    one, other = _network(), _network()
    _fill(one, 1.0)
    kept = Lookahead(one, 0.9, steps=10)
    _fill(one, 4.0)
    kept.update(one, 4)
    other.load_state_dict(one.state_dict())
    resumed = Lookahead(other, 0.9, steps=10)
    resumed.restore({name: value.clone() for name, value in kept.state().items()})
    for network, lookahead in ((one, kept), (other, resumed)):
        _fill(network, 7.0)
        lookahead.update(network, 9)
    assert _value(one) == _value(other) != 7.0
