"""The densities of one run, against sums that are written out here."""

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from torch.distributions import Normal

import pyro_vbd as vbd
from pyro_vbd.draws.model_run import ModelRun
from pyro_vbd.draws.runs import draw_runs
from pyro_vbd.prototype import sample_sites
from tests.digits import classifier
from tests.linear_model import NOISE, data, exact_pair

pytestmark = pytest.mark.usefixtures("float64")


def only_run(model, guide, args, draws, batch_size=10_000):
    with draw_runs(model, guide, args, batch_size) as runs:
        (run,) = runs(draws)
    return run


@pytest.mark.parametrize("draws", [1, 5])
def test_densities_of_a_regression(draws):
    x, y = data()
    model, guide = exact_pair(x, y)
    run = only_run(model, guide, (x, y), draws, batch_size=32 * draws)
    assert run.together == (draws > 1)
    w = run.latents()["w"]
    assert w.shape == (draws, 3)
    q = guide.posteriors["q/w"].distribution()
    assert torch.allclose(run.log_prior()["w"], Normal(0.0, 1.0).log_prob(w).sum(-1))
    assert torch.allclose(run.log_q(), Normal(q.loc, q.scale).log_prob(w).sum(-1))
    assert torch.allclose(run.log_likelihood()["y"], Normal(w @ x.T, NOISE).log_prob(y))
    assert torch.equal(run.observed()["y"], y[None])


def test_many_terms_of_single_precision_are_summed_in_double():
    prior = dist.Normal(torch.zeros(100_000, dtype=torch.float32), 1.0)
    trace = poutine.trace(lambda: pyro.sample("w", prior.to_event(1))).get_trace()
    run = ModelRun(slice(0, 1), slice(0, 1), trace, trace, sample_sites(trace), together=False)
    expected = prior.log_prob(trace.nodes["w"]["value"]).double().sum()
    for found in (run.log_prior()["w"], run.log_q()):
        assert found.dtype == torch.float64
        assert torch.allclose(found, expected, rtol=1e-12)


def test_a_network_and_its_gammas():
    model = classifier(20, hidden=5)
    guide = vbd.VBDGuide(model, init_log_var=-2.0)
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    run = only_run(model, guide, (x, y), 3)
    latents = run.latents()
    assert latents["0.weight"].shape == latents["0.weight_gamma"].shape == (3, 5, 64)
    hidden = torch.relu(torch.einsum("soi,bi->sbo", latents["0.weight"], x) + model.network.net[0].bias)
    logits = torch.einsum("soi,sbi->sbo", latents["2.weight"], hidden) + model.network.net[2].bias
    expected = logits.log_softmax(-1).gather(-1, y.expand(3, 20).unsqueeze(-1)).squeeze(-1)
    assert torch.allclose(run.log_likelihood()["y"], expected)
    prior = Normal(0.0, latents["0.weight_gamma"].sqrt()).log_prob(latents["0.weight"]).sum((1, 2))
    assert torch.allclose(run.log_prior()["0.weight"], prior)
    assert torch.allclose(run.log_prior()["0.weight_gamma"], -320 * torch.tensor(1e3).log())
    q = {site: guide.posteriors[f"q/{site[0]}/weight"].distribution() for site in ("0.weight", "2.weight")}
    log_q = sum(Normal(p.loc, p.scale).log_prob(latents[site]).sum((1, 2)) for site, p in q.items())
    assert torch.allclose(run.log_q(), log_q)  # the deltas count nothing


def test_jacobians_of_constrained_latents_count():
    def model(x, y=None):
        s = pyro.sample("s", dist.HalfNormal(1.0))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x, s), obs=y)

    x, y = torch.randn(6), torch.randn(6)
    for guide in (vbd.VBDGuide(model, x, y), pyro.infer.autoguide.AutoNormal(model)):
        guide(x, y)
        run = only_run(model, guide, (x, y), 1)
        s = run.latents()["s"]
        if isinstance(guide, vbd.VBDGuide):
            q = guide.posteriors["q/s"]
            loc, scale = q.loc, (0.5 * q.log_var).exp()
        else:
            loc, scale = guide.locs.s, guide.scales.s
        assert torch.allclose(run.log_q(), Normal(loc, scale).log_prob(s.log()) - s.log())


@pytest.mark.parametrize("draws", [1, 3])
def test_latents_in_plates_are_summed(draws):
    def model(x, y=None):
        with pyro.plate("groups", 3, dim=-1):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Normal(z.mean((-1, -2)).unsqueeze(-1) + x, 1.0), obs=y)

    x, y = torch.randn(6), torch.randn(6)
    guide = vbd.VBDGuide(model, x, y)
    run = only_run(model, guide, (x, y), draws)
    z = run.latents()["z"]
    assert z.shape == (draws, 3, 2)
    q = guide.posteriors["q/z"].distribution()
    assert torch.allclose(run.log_prior()["z"], Normal(0.0, 2.0).log_prob(z).sum((1, 2)))
    assert torch.allclose(run.log_q(), Normal(q.loc, q.scale).log_prob(z).sum((1, 2)))
    assert torch.allclose(run.log_likelihood()["y"], Normal(z.mean((1, 2))[:, None] + x, 1.0).log_prob(y))


def test_masks_of_latents_count():
    keep = torch.tensor([True, False, True])

    def model(x, y=None):
        with pyro.plate("groups", 3), poutine.mask(mask=keep):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 2.0).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x + z.mean(), 1.0), obs=y)

    x = torch.randn(6)
    guide = vbd.VBDGuide(model, x, x)
    run = only_run(model, poutine.mask(guide.forward, mask=keep), (x, x), 1)
    z, q = run.latents()["z"], guide.posteriors["q/z"].distribution()
    assert torch.allclose(run.log_prior()["z"], Normal(0.0, 2.0).log_prob(z)[:, keep].sum((1, 2)))
    assert torch.allclose(run.log_q(), Normal(q.loc, q.scale).log_prob(z)[:, keep].sum((1, 2)))


@pytest.mark.parametrize("draws", [1, 2])
def test_targets_that_broadcast_are_observed_whole(draws):
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x), dim=-2), pyro.plate("outputs", 3, dim=-1):
            pyro.sample("y", dist.Normal(x * (w if w.dim() == 1 else w.squeeze(-2)), 1.0), obs=y)

    x, y = torch.randn(6, 3), torch.randn(6, 1)
    run = only_run(model, vbd.VBDGuide(model, x, y), (x, y), draws, batch_size=6 * draws)
    assert torch.equal(run.observed()["y"], y.expand(1, 6, 3))


def test_masks_count_and_scales_do_not():
    x, y = data(8)
    keep = torch.arange(8) < 5

    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", 100, subsample=x), poutine.scale(scale=7.0), poutine.mask(mask=keep):
            pyro.sample("y", dist.Normal((x * w).sum(-1), NOISE), obs=y)

    guide = vbd.VBDGuide(model, x, y)
    for draws in (1, 2):
        run = only_run(model, guide, (x, y), draws, batch_size=8 * draws)
        full = Normal(run.latents()["w"] @ x.T, NOISE).log_prob(y)
        assert torch.allclose(run.log_likelihood()["y"], full * keep)
