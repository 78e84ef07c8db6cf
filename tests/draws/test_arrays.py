"""Arrays do not depend on how the runs were cut: each number belongs to its draw and its datum."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Normal

import pyro_vbd as vbd
from pyro_vbd.draws.arrays import BY_DATUM, BY_DRAW, draw_arrays
from pyro_vbd.draws.runs import draw_runs
from tests.linear_model import NOISE, data, exact_pair, log_evidence, make_model

pytestmark = pytest.mark.usefixtures("float64")
GROUPS = (*BY_DRAW, *BY_DATUM)


@pytest.mark.parametrize("batch_size", [5, 32, 100, 10_000])
def test_numbers_belong_to_their_draw_and_datum(batch_size):
    x, y = data()
    model, guide = exact_pair(x, y)
    chosen = torch.tensor([0, 4, 5, 9, 31], device="cpu")
    seen = []
    with draw_runs(model, guide, (x, y), batch_size) as runs:
        found = draw_arrays(runs, 7, GROUPS, ["w"], chosen, seen.append)
    assert sum(seen) == 7 * 32
    w = found["posterior"]["w"].to(x)
    full = Normal(w @ x.T, NOISE).log_prob(y).cpu()
    assert torch.allclose(found["log_likelihood"]["y"], full[:, chosen])
    assert torch.equal(found["observed_data"]["y"], y.cpu()[chosen].unsqueeze(0))
    assert found["posterior_predictive"]["y"].shape == (7, 5)
    prior = Normal(0.0, 1.0).log_prob(w).sum(-1).cpu()
    assert torch.allclose(found["log_prior"]["w"], prior)
    assert torch.allclose(found["sample_stats"]["lp"], full.sum(1) + prior)
    assert found["sample_stats"]["lp"].dtype == torch.float64


def test_many_data_of_single_precision_are_summed_in_double():
    torch.set_default_dtype(torch.float32)
    x, y = data(20_000)
    model = make_model(len(x))
    with draw_runs(model, vbd.VBDGuide(model, x, y), (x, y), 7000) as runs:
        found = draw_arrays(runs, 2, GROUPS)
    assert found["log_likelihood"]["y"].dtype == torch.float32
    expected = found["log_likelihood"]["y"].double().sum(1) + found["log_prior"]["w"]
    assert torch.allclose(found["sample_stats"]["lp"], expected, rtol=1e-12)


@pytest.mark.parametrize("batch_size", [5, 100])
def test_weights_of_the_exact_posterior_are_the_evidence(batch_size):
    x, y = data()
    model, guide = exact_pair(x, y)
    with draw_runs(model, guide, (x, y), batch_size) as runs:
        stats = draw_arrays(runs, 20, ["sample_stats"])["sample_stats"]
    assert torch.allclose(stats["lp"] - stats["log_q"], torch.tensor(log_evidence(x, y), device="cpu"), atol=1e-8)


def test_mean_log_weight_is_the_bound():
    x, y = data()
    model, guide = exact_pair(x, y, spread=0.6)
    with draw_runs(model, guide, (x, y), 640_000) as runs:
        stats = draw_arrays(runs, 20_000, ["sample_stats"])["sample_stats"]
    weights = stats["lp"] - stats["log_q"]
    bound = -vbd.VBD_ELBO(estimator="weights", num_particles=20_000, vectorize_particles=True).loss(model, guide, x, y)
    assert abs(float(weights.mean()) - bound) < 4 * 2**0.5 * float(weights.std()) / 20_000**0.5


def test_part_of_the_plate_has_no_joint_density():
    x, y = data()
    model = make_model(1000)
    with draw_runs(model, vbd.VBDGuide(model, x, y), (x, y), 100) as runs:
        assert set(draw_arrays(runs, 3, ["sample_stats"])["sample_stats"]) == {"log_q"}


def test_predictive_draws_have_the_model_s_noise():
    x, y = data()
    model, guide = exact_pair(x, y)
    with draw_runs(model, guide, (x, y), 10_000) as runs:
        found = draw_arrays(runs, 4000, ["posterior", "posterior_predictive"], ["w"])
    noise = found["posterior_predictive"]["y"] - found["posterior"]["w"] @ x.T.cpu()
    assert abs(float(noise.mean())) < 4 * NOISE / noise.numel() ** 0.5
    assert abs(float(noise.std()) / NOISE - 1) < 4 / (2 * noise.numel()) ** 0.5


@pytest.mark.parametrize("batch_size", [4, 10, 1000])
def test_targets_of_several_dimensions_and_plates(batch_size):
    """Data on the left of a plate of 3 outputs, each with an event of 2."""

    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        outputs = pyro.plate("outputs", 3, dim=-1)
        with pyro.plate("data", len(x), dim=-2), outputs:
            mean = (x * w.unsqueeze(-2)).unsqueeze(-1).expand(*w.shape[:-1], len(x), 3, 2)
            pyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y)

    x, y = torch.randn(10, 3), torch.randn(10, 3, 2)
    guide = vbd.VBDGuide(model, x, y)
    chosen = torch.tensor([1, 8], device="cpu")
    with draw_runs(model, guide, (x, y), batch_size) as runs:
        found = draw_arrays(runs, 5, GROUPS, ["w"], chosen)
    mean = (x * found["posterior"]["w"].to(x).unsqueeze(1)).unsqueeze(-1)
    expected = Normal(mean, 1.0).log_prob(y).sum(-1).cpu()
    assert torch.allclose(found["log_likelihood"]["y"], expected[:, chosen])
    assert found["posterior_predictive"]["y"].shape == (5, 2, 3, 2)
    assert torch.equal(found["observed_data"]["y"][0], y.cpu()[chosen])


def test_a_factor_counts_in_the_joint_density_alone():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.factor("penalty", -w.abs().sum(-1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * w).sum(-1), NOISE), obs=y)

    x, y = data()
    with draw_runs(model, vbd.VBDGuide(model, x, y), (x, y), 100) as runs:
        found = draw_arrays(runs, 5, GROUPS, ["w"])
    assert set(found["log_likelihood"]) == set(found["observed_data"]) == set(found["posterior_predictive"]) == {"y"}
    terms = found["log_likelihood"]["y"].sum(1) + found["log_prior"]["w"] - found["posterior"]["w"].abs().sum(1)
    assert torch.allclose(found["sample_stats"]["lp"], terms)


def test_points_are_held_once():
    def model(x, y=None):
        gamma = pyro.sample("gamma", dist.Uniform(0.0, 1e3).expand([3]).to_event(1))
        w = pyro.sample("w", dist.Normal(0.0, gamma.sqrt()).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * w).sum(-1), NOISE), obs=y)

    x, y = data()
    guide = vbd.VBDGuide(model, x, y)
    with draw_runs(model, guide, (x, y), 100) as runs:
        gamma = draw_arrays(runs, 50, ["posterior"], ["gamma"])["posterior"]["gamma"]
    assert gamma.shape == (50, 3)
    assert gamma.stride(0) == 0
    assert torch.allclose(gamma[0].to(x), guide.median()["gamma"])
