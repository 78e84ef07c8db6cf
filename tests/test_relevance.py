from fractions import Fraction

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer.autoguide import AutoNormal
from torch import nn
from torch.nn.utils import prune

import pyro_vbd as vbd
from tests.digits import classifier, network


def pair_with(log_alpha):
    """A guide whose first weights have the given log alpha (mean 1)."""
    model = classifier(20)
    guide = vbd.VBDGuide(model)
    q = guide.posteriors["q/0/weight"]
    with torch.no_grad():
        q.loc.fill_(1.0)
        q.log_var.fill_(-5.0)
        q.log_var[0, : len(log_alpha)] = torch.tensor(log_alpha)
    return model, guide


def test_masks_keep_up_to_the_threshold():
    _, guide = pair_with([2.9, 3.1, 8.0])
    mask = vbd.masks(guide)["0.weight"]
    assert mask[0, :4].tolist() == [1, 0, 0, 1]
    assert (mask.shape, mask.dtype) == ((50, 64), guide.median()["0.weight"].dtype)
    assert vbd.masks(guide, threshold=5.0)["0.weight"][0, :4].tolist() == [1, 1, 0, 1]


def test_a_guide_without_weights_has_no_masks():
    guide = vbd.VBDGuide(lambda: pyro.sample("shift", dist.Normal(torch.full((3,), 2.0), 1.0).to_event(1)))
    guide()
    with pytest.raises(ValueError, match="are for no weight"):
        vbd.masks(guide)


def test_a_mean_of_zero_is_removed():
    _, guide = pair_with([0.0])
    with torch.no_grad():
        guide.posteriors["q/0/weight"].loc[0, 0] = 0.0
    assert vbd.masks(guide)["0.weight"][0, 0] == 0


def test_sparsity_counts_weights_not_layers():
    _, guide = pair_with([4.0] * 64)
    expected = 64 / (50 * 64 + 10 * 50)
    beyond = sum(int((v > 3).sum()) for v in guide.log_alpha().values()) / 3700
    assert vbd.sparsity(guide) == pytest.approx(beyond)
    assert vbd.sparsity(guide) >= expected


def test_masks_fit_torch_prune():
    model, guide = pair_with([4.0, 4.0])
    net = vbd.point_network(model, guide)
    prune.custom_from_mask(net[0], "weight", vbd.masks(guide)["0.weight"])
    assert torch.equal(net[0].weight, vbd.point_network(model, guide, 3.0)[0].weight)


def test_point_network_has_the_means_and_the_trained_rest():
    model, guide = pair_with([4.0])
    with torch.no_grad():
        model.network.net[0].bias.fill_(7.0)
    net = vbd.point_network(model, guide)
    assert torch.equal(net[0].weight, torch.ones(50, 64))
    assert (net[0].bias == 7).all()
    assert all(p.requires_grad for p in net.parameters())
    for threshold in (3.0, 0.0):
        pruned = vbd.point_network(model, guide, threshold)
        assert pruned[0].weight[0, 0] == 0
        assert pruned[0].weight[0, 1] == 1
    with torch.no_grad():
        net[0].weight.zero_()
    assert not torch.equal(model.network.net[0].weight, net[0].weight)


def test_point_network_of_a_lifted_network_with_a_name():
    lifted = vbd.lift(network(), vbd.priors.GaussianUniform(), name="body")
    guide = vbd.VBDGuide(lifted)
    assert set(guide.median()) >= {"body.0.weight"}
    assert torch.equal(vbd.point_network(lifted, guide)[0].weight, guide.median()["body.0.weight"])


def test_the_relevance_of_a_unit_is_that_of_its_sums():
    _, guide = pair_with([0.5, 2.0])
    q = guide.posteriors["q/0/weight"]
    by_unit, by_input = vbd.relevance(guide, "unit"), vbd.relevance(guide, "input")
    expected = q.log_var.exp().sum(1, keepdim=True).log() - q.loc.square().sum(1, keepdim=True).log()
    torch.testing.assert_close(by_unit["0.weight"], expected.detach())
    expected = q.log_var.exp().sum(0, keepdim=True).log() - q.loc.square().sum(0, keepdim=True).log()
    torch.testing.assert_close(by_input["0.weight"], expected.detach())
    assert torch.equal(vbd.relevance(guide)["0.weight"], guide.log_alpha()["0.weight"])
    with pytest.raises(ValueError, match="per='filter' is unknown: use one of weight, unit, input"):
        vbd.relevance(guide, "filter")


def test_inputs_of_a_convolution_are_its_channels():
    guide = vbd.VBDGuide(vbd.lift(nn.Conv2d(3, 4, (2, 5)), vbd.priors.GaussianUniform()))
    assert vbd.relevance(guide, "unit")["weight"].shape == (4, 1, 1, 1)
    assert vbd.relevance(guide, "input")["weight"].shape == (1, 3, 1, 1)


@pytest.mark.parametrize(
    ("module", "unit", "single_input"),
    [(nn.ConvTranspose2d(3, 4, (2, 5)), (1, 4, 1, 1), (3, 1, 1, 1)), (nn.Embedding(6, 2), (1, 2), (6, 1))],
)
def test_units_and_inputs_are_those_of_priors_where_the_inputs_come_first(module, unit, single_input):
    for per, name, shape in (("output", "unit", unit), ("input", "input", single_input)):
        guide = vbd.VBDGuide(vbd.Regressor(nn.Sequential(module), vbd.priors.GaussianUniform(per=per), 10))
        assert vbd.relevance(guide, name)["0.weight"].shape == shape == guide.median()["0.weight_gamma"].shape


def test_signal_to_noise_is_the_mean_over_the_deviation():
    _, guide = pair_with([0.5, 2.0])
    q = guide.posteriors["q/0/weight"]
    expected = (q.loc.abs() / (0.5 * q.log_var).exp()).detach()
    torch.testing.assert_close(vbd.signal_to_noise(guide)["0.weight"], expected)


def test_keys_are_those_of_the_networks_state():
    model, guide = pair_with([0.5])
    assert set(vbd.relevance(guide)) < set(model.network.net.state_dict())


def test_whole_units_and_inputs():
    _, guide = pair_with([])
    q = guide.posteriors["q/0/weight"]
    with torch.no_grad():
        q.log_var[3] = 6.0
        q.log_var[:, 5] = 6.0
        q.log_var[7, 7] = 6.0  # alone it does not take its row with it
    by_unit, by_input = vbd.masks(guide, 4.0, per="unit")["0.weight"], vbd.masks(guide, 4.0, per="input")["0.weight"]
    assert (by_unit == 0).nonzero()[:, 0].unique().tolist() == [3]
    assert by_unit[3].eq(0).all()
    assert (by_input == 0).nonzero()[:, 1].unique().tolist() == [5]
    assert by_input.is_contiguous()


def gated():
    net = vbd.add_gates(network())
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 20)
    guide = vbd.VBDGuide(model)
    q = guide.posteriors["q/1/1/weight"]
    with torch.no_grad():
        q.loc.fill_(1.0)
        q.log_var.copy_(torch.linspace(-2.0, 4.0, 50))
    return model, guide


def test_gates_have_a_threshold_of_their_own():
    model, guide = gated()
    log_alpha = guide.log_alpha()["1.1.weight"]
    assert torch.equal(vbd.masks(guide)["1.1.weight"], (log_alpha <= 0).float())
    assert torch.equal(vbd.masks(guide, 3.0, 1.5)["1.1.weight"], (log_alpha <= 1.5).float())
    assert torch.equal(vbd.masks(guide, {"1.*": 2.0})["1.1.weight"], (log_alpha <= 2.0).float())
    assert torch.equal(vbd.masks(guide, {"0.*": 2.0})["1.1.weight"], (log_alpha <= 0.0).float())
    assert torch.equal(vbd.masks(guide, {"0.*": -50.0})["2.weight"], vbd.masks(guide)["2.weight"])
    assert vbd.masks(guide, {"0.*": -50.0})["0.weight"].sum() == 0
    closed = vbd.point_network(model, guide, 3.0)[1][1].weight
    assert torch.equal(closed != 0, log_alpha <= 0)
    assert (vbd.point_network(model, guide)[1][1].weight == 1).all()
    with pytest.raises(ValueError, match="threshold is nan, which would keep nothing and remove nothing"):
        vbd.masks(guide, float("nan"))
    with pytest.raises(ValueError, match=r"thresholds of \['conv\.\*'\] are for no weight: the sites are \[.*'.*mend"):
        vbd.masks(guide, {"*": 3.0, "conv.*": 1.0})


@pytest.mark.parametrize("per", ["unit", "input"])
def test_a_gate_is_a_unit_of_its_own(per):
    _, guide = gated()
    torch.testing.assert_close(vbd.relevance(guide, per)["1.1.weight"], guide.log_alpha()["1.1.weight"])


def test_the_gates_threshold_counts_everywhere():
    model, guide = gated()
    kept = vbd.masks(guide, 3.0, 1.5)
    assert torch.equal(vbd.point_network(model, guide, 3.0, 1.5)[1][1].weight != 0, kept["1.1.weight"] != 0)
    zeros = sum(int((mask == 0).sum()) for mask in kept.values())
    assert vbd.sparsity(guide, 3.0, 1.5) == pytest.approx(zeros / sum(mask.numel() for mask in kept.values()))


@pytest.mark.parametrize("number", [np.float32, np.int64, torch.tensor, lambda n: torch.full((1,), n), Fraction])
def test_numbers_of_every_library_are_thresholds(number):
    model, guide = gated()
    for ours, theirs in ((3, number(3)), ({"0.*": 2}, {"0.*": number(2)})):
        expected, found = vbd.masks(guide, ours, 1), vbd.masks(guide, theirs, number(1))
        assert all(torch.equal(found[site], mask) for site, mask in expected.items())
        assert vbd.sparsity(guide, theirs) == vbd.sparsity(guide, ours)
    small, _ = vbd.compress(model, guide, number(3), inputs=torch.randn(2, 64), batch_sizes=())
    assert (
        small[2].in_features == vbd.compress(model, guide, 3, inputs=torch.randn(2, 64), batch_sizes=())[0][2].in_features
    )


@pytest.mark.parametrize("bad", ["3", None, [3.0], torch.ones(2), np.ones(2), 3j])
def test_what_is_no_number_is_no_threshold(bad):
    _, guide = gated()
    for arguments, setting in (((bad,), "threshold"), ((3.0, bad), "gate_threshold"), (({"0.*": bad},), r"of '0\.\*'")):
        with pytest.raises(TypeError, match=rf"{setting} is .*, which is no number: use one, such as 3\.0"):
            vbd.masks(guide, *arguments)


def test_masks_of_another_network_are_refused():
    model, guide = pair_with([0.5])
    for site in ("9.weight", "0.weight_gamma"):
        with pytest.raises(ValueError, match=f"a mask for '{site}', but the weights are"):
            vbd.point_network(model, guide, kept={site: torch.ones(50, 64)})
    with pytest.raises(ValueError, match=r"'0.weight' has shape \(64, 50\), the weight \(50, 64\)"):
        vbd.point_network(model, guide, kept={"0.weight": torch.ones(64, 50)})
    other = vbd.Classifier(nn.Sequential(nn.Linear(3, 2)), vbd.priors.GaussianUniform(), 8)
    with pytest.raises(ValueError, match=r"no posterior of '0.weight' with shape \(50, 64\): it is of another model"):
        vbd.point_network(model, vbd.VBDGuide(other))


@pytest.mark.parametrize(
    "ask",
    [
        lambda model, guide: vbd.relevance(guide),
        lambda model, guide: vbd.masks(guide),
        lambda model, guide: vbd.sparsity(guide),
        lambda model, guide: vbd.point_network(model, guide),
        lambda model, guide: vbd.compress(model, guide, inputs=torch.zeros(2, 64)),
    ],
)
def test_a_guide_without_dropout_rates(ask):
    model = classifier(20)
    with pytest.raises(TypeError, match="AutoNormal has no dropout rates: pass a VBDGuide"):
        ask(model, AutoNormal(model.prototype))


def test_a_model_without_a_network():
    with pytest.raises(TypeError, match="holds no network"):
        vbd.point_network(lambda x: x, vbd.VBDGuide(classifier(20)))


def test_a_model_inside_handlers():
    model = classifier(20)
    guide = vbd.VBDGuide(model)
    wrapped = pyro.poutine.scale(pyro.poutine.condition(model, data={}), scale=2.0)
    state = vbd.point_network(model, guide).state_dict()
    for name, value in vbd.point_network(wrapped, guide).state_dict().items():
        torch.testing.assert_close(value, state[name])


def test_networks_inside_a_model_of_ones_own_are_seen():
    """Their gates, and which of their weights have the inputs first."""

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), vbd.noise.Gate(6), nn.Linear(6, 1))
            self.encoder = vbd.lift(net, vbd.priors.GaussianUniform(), name="encoder")

        def forward(self, x, y):
            mean = self.encoder(x).squeeze(-1)
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    guide = vbd.VBDGuide(Own(), torch.zeros(4, 2, dtype=torch.long), torch.zeros(4))
    gate = guide.posteriors["q/encoder/2/weight"]
    with torch.no_grad():
        gate.log_var.copy_(gate.loc.square().log() + 1.0)
    assert vbd.masks(guide)["encoder.2.weight"].sum() == 0
    assert vbd.relevance(guide, "unit")["encoder.0.weight"].shape == (1, 3)
