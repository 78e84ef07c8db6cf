"""What learning the dropout rate does, on real data: it needs the KL, more rates are better, and large rates are zeros."""

import copy
from functools import cache

import pyro
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from tests.digits import classifier, digits

STEPS = 400


@pytest.fixture(autouse=True)
def _one_thread():
    """Small products are slower on several, where other processes hold the cores."""
    kept = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(kept)


def data(device):
    return digits(device, train=600)[:2]


@cache
def trained(device, alpha, kl_weight=1.0, steps=STEPS, from_one=False):
    """A classifier of digits and its guide, after some steps on all data; from alpha = 1, or from less noise."""
    x, y = data(device)
    pyro.set_rng_seed(0)
    model = classifier(len(x), hidden=16)
    guide = vbd.VBDGuide(model, alpha=alpha, init_log_var=-6.0)
    if from_one:
        for posterior in guide.posteriors.values():
            if posterior.multiplicative:
                nn.init.zeros_(posterior.log_alpha)
            else:
                posterior.log_var.data = posterior.loc.detach().square().log()
    elbo = vbd.VBD_ELBO(kl_weight)
    optimizer = torch.optim.Adam([p for p in (*model.parameters(), *guide.parameters()) if p.requires_grad], 0.02)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, 2.0 - 2.0 * step / max(steps, 1)))
    for _ in range(steps):
        optimizer.zero_grad()
        elbo.differentiable_loss(model, guide, x, y).backward()
        optimizer.step()
        schedule.step()
    return model, guide


def bounds(device, alpha, count=50):
    """The bound reached, by draws, none of them weighted."""
    model, guide = trained(device, alpha, steps=1000)  # rates of single weights take that long
    pyro.set_rng_seed(1)
    return -torch.tensor([vbd.VBD_ELBO().loss(model, guide, *data(device)) for _ in range(count)])


@pytest.mark.parametrize("alpha", ["layer", "unit", "weight"])
def test_without_the_kl_alpha_goes_towards_zero(alpha, device):
    """The likelihood alone is highest at a delta; the KL is what keeps the noise."""
    start, without, with_kl = (
        trained(device, alpha, kl_weight, steps, from_one=True)[1].log_alpha()
        for kl_weight, steps in ((0.0, 0), (0.0, 150), (1.0, 150))
    )
    for site in without:
        torch.testing.assert_close(start[site], torch.zeros_like(start[site]), atol=1e-5, rtol=0.0)
        assert without[site].median() < -1.0, site
        assert without[site].median() < with_kl[site].median() - 0.3, site


@pytest.mark.parametrize(("fewer", "more"), [(1.0, "layer"), ("layer", "unit"), ("unit", "weight")])
def test_bound_grows_with_the_number_of_rates(fewer, more, device):
    """More variational parameters come closer to the posterior: fixed, one a layer, one a unit, one a weight."""
    low, high = bounds(device, fewer), bounds(device, more)
    error = (low.var() / len(low) + high.var() / len(high)).sqrt()
    assert (high.mean() - low.mean()) / error > 6


def test_where_alpha_is_large_the_weight_is_zero(device):
    """log alpha > 3: mean and alpha mean^2 vanish beside those of the weights that are kept, and so does the effect."""
    model, guide = trained(device, "weight")
    for site, log_alpha in guide.log_alpha().items():
        loc = guide.median()[site]
        variance = log_alpha.exp() * loc.square()
        removed = log_alpha > 3
        assert removed.float().mean() > 0.3
        kept = loc[~removed].square().mean()
        assert loc[removed].square().mean() < 1e-3 * kept
        assert variance[removed].mean() < 1e-2 * kept
    x, y = data(device)
    pruned = copy.deepcopy(guide)
    with torch.no_grad():
        for site, log_alpha in guide.log_alpha().items():
            pruned.posteriors["q/" + site.replace(".", "/")].loc[log_alpha > 3] = 0.0
    before, after = (log_likelihood_at_the_means(model, g, x, y) for g in (guide, pruned))
    assert abs(before - after) < 0.01 * len(x)


@torch.no_grad()
def log_likelihood_at_the_means(model, guide, x, y):
    conditioned = pyro.poutine.condition(model, data=guide.median())
    trace = pyro.poutine.trace(conditioned).get_trace(x, y)
    trace.compute_log_prob(lambda name, site: name == "y")
    return float(trace.nodes["y"]["log_prob_sum"])
