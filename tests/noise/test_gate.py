"""Gates: one draw for each datum and channel, the joint distribution of weight sampling, and what is refused."""

import pyro
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.estimators.gaussian_tensor import GaussianTensor
from pyro_vbd.selection import select


def gate(values, dim=1):
    module = vbd.Gate(len(values), dim)
    with torch.no_grad():
        module.weight.copy_(torch.tensor(values))
    return module


def test_multiplies_channels():
    x = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(gate([1.0, 0.0, -2.0])(x), x * torch.tensor([1.0, 0.0, -2.0])[:, None, None])
    torch.testing.assert_close(gate([2.0] * 5, dim=-1)(x), 2.0 * x)
    torch.testing.assert_close(gate([2.0, 3.0, 0.0])(x[:, :, 0, 0]), x[:, :, 0, 0] * torch.tensor([2.0, 3.0, 0.0]))


def test_starts_near_one_as_the_authors():
    weight = vbd.Gate(10_000).weight.detach()
    assert abs(float(weight.mean()) - 1.0) < 4 * 0.01 / 100
    assert float(weight.std()) == pytest.approx(0.01, rel=0.05)


def test_each_datum_gets_one_draw_for_a_channel():
    """The noise is the same at all places of a channel, and another for each datum and channel."""
    module, x = gate([1.0, 2.0]), torch.ones(20_000, 2, 3)
    weight = GaussianTensor(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 0.1]))
    out = torch.func.functional_call(module, {"weight": weight}, (x,))
    assert torch.equal(out, out[:, :, :1].expand_as(out))
    draws = out[:, :, 0]
    z_mean = (draws.mean(0) - torch.tensor([1.0, 2.0])) / (torch.tensor([0.5, 0.1]) / len(draws)).sqrt()
    z_var = (draws.var(0) / torch.tensor([0.5, 0.1]) - 1.0) / (2.0 / len(draws)) ** 0.5
    correlation = torch.corrcoef(draws.T)[0, 1] * len(draws) ** 0.5
    assert z_mean.abs().max() < 4
    assert z_var.abs().max() < 4
    assert abs(float(correlation)) < 4


def test_has_a_prior_by_default_and_one_of_its_own():
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), vbd.Gate(6), nn.Linear(6, 3))
    priors = {"2": vbd.priors.LogUniform(), "*": vbd.priors.GaussianUniform()}
    chosen = select(net, priors)
    assert {name: type(prior).__name__ for name, prior in chosen.items()} == {
        "0.weight": "GaussianUniform", "2.weight": "LogUniform", "3.weight": "GaussianUniform"
    }  # fmt: skip


@pytest.mark.parametrize("prior", [vbd.priors.GaussianUniform(), vbd.priors.LogUniform(), vbd.priors.Gaussian(1.0)])
def test_trains_and_closes_what_is_useless(prior, device):
    """Of two inputs one is noise: its gate closes under a prior that can, and never the other."""
    pyro.set_rng_seed(0)
    x = torch.randn(400, 2)
    y = (x[:, 0] > 0).long()
    net = nn.Sequential(vbd.Gate(2), nn.Linear(2, 2))
    model = vbd.Classifier(net, prior, len(x), where="0.weight")
    guide = vbd.VBDGuide(model, init_log_var=-9.0)
    vbd.fit(model, guide, vbd.Batches(x, y, batch_size=100), epochs=60, lr=0.03, progress=False)
    log_alpha = guide.log_alpha()["0.weight"]
    assert log_alpha[0] < 0
    if not isinstance(prior, vbd.priors.Gaussian):
        assert log_alpha[1] > 0


def test_predictive_draws():
    model = vbd.Classifier(nn.Sequential(vbd.Gate(3), nn.Linear(3, 2)), vbd.priors.GaussianUniform(), 8)
    guide = vbd.VBDGuide(model, init_log_var=-2.0)
    assert vbd.predict(model, guide, torch.randn(5, 3), num_samples=3).probs.shape == (5, 2)
    drawn = pyro.infer.Predictive(model, guide=guide, num_samples=4, parallel=True)(torch.randn(5, 3))["y"]
    assert drawn.shape == (4, 5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a gate of 3 in dimension 1 got an input of shape"):
        vbd.Gate(3)(torch.randn(2, 4))
    with pytest.raises(ValueError, match="a gate of 3 in dimension -1 got an input of shape"):
        vbd.Gate(3, dim=-1)(torch.randn(3))
    with pytest.raises(ValueError, match=r"Gate\(size=0, dim=1\)"):
        vbd.Gate(0)
    with pytest.raises(ValueError, match=r"not the dimension of the batch"):
        vbd.Gate(3, dim=0)
