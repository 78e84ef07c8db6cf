"""What is drawn of a prior, against closed forms."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from comparison.shapes import log_marginal, penalty, scales, shrinkage
from torch.distributions import Laplace, Normal, StudentT

from pyro_vbd import priors
from pyro_vbd.priors import GaussianUniform, LogUniform, ScaleMixture

W = torch.tensor([1e-3, 0.1, 1.0, 5.0, 20.0], dtype=torch.float64)
LOG_ALPHA = torch.linspace(-8, 8, 9, dtype=torch.float64)


def uniform_marginal(w, b):
    """Section 6d of the notes to the paper: the integral of N(w | 0, g) over g in (0, b), divided by b."""
    tail = math.sqrt(2 * b / math.pi) * torch.exp(-(w**2) / (2 * b)) - w.abs() * torch.erfc(w.abs() / math.sqrt(2 * b))
    return (tail / b).log()


@pytest.mark.parametrize(
    ("prior", "truth"),
    [
        (ScaleMixture(dist.Exponential(0.5 * 3.0**2)), Laplace(0.0, 1 / 3.0).log_prob),
        (ScaleMixture(dist.InverseGamma(2.0, 0.3)), StudentT(4.0, 0.0, math.sqrt(0.15)).log_prob),
        (ScaleMixture(dist.Gamma(2.0, 0.3), on="precision"), StudentT(4.0, 0.0, math.sqrt(0.15)).log_prob),
        (GaussianUniform(0.0, 4.0), lambda w: uniform_marginal(w, 4.0)),
        (priors.Gaussian(0.5), Normal(0.0, 0.5).log_prob),
        (LogUniform(), lambda w: -w.abs().log()),
    ],
    ids=lambda value: repr(value) if isinstance(value, priors.Prior) else "",
)
def test_marginals(prior, truth):
    w = W[:-1] if isinstance(prior, GaussianUniform) else W  # erfc cancels in the tail
    torch.testing.assert_close(log_marginal(prior, w), truth(w.cpu()).to(w), atol=1e-4, rtol=1e-4)


def test_the_horseshoe_has_the_shrinkage_profile_it_is_named_after():
    """Beta(1/2, 1/2), averaged over each cell."""
    kappa, half = torch.linspace(0.02, 0.98, 49, dtype=torch.float64), 0.01
    found = shrinkage(ScaleMixture(dist.HalfCauchy(1.0), on="scale"), kappa)
    below, above = ((2 / math.pi) * torch.asin((kappa + side).sqrt()) for side in (-half, half))
    torch.testing.assert_close(found, ((above - below) / (2 * half)).to(found), rtol=2e-3, atol=0)


def test_the_uniform_prior_leaves_weights_alone():
    """1/(b kappa^2), averaged over each cell."""
    kappa, half = torch.linspace(0.1, 0.9, 33, dtype=torch.float64), 0.0125
    found = shrinkage(GaussianUniform(0.0, 50.0), kappa)
    torch.testing.assert_close(found, (1 / (50 * (kappa**2 - half**2))).to(found), rtol=2e-3, atol=0)


def test_one_level_has_no_shrinkage_profile():
    assert shrinkage(priors.Gaussian(), torch.tensor([0.5])) is None


@pytest.mark.parametrize("loc", [0.01, -0.3])
def test_penalties_against_the_library(loc):
    collapsed = 0.5 * torch.log1p(torch.exp(-LOG_ALPHA))
    found = penalty(GaussianUniform(0.0, 1e6), loc, LOG_ALPHA) - math.log(1e6)
    torch.testing.assert_close(found, collapsed, atol=1e-5, rtol=0)
    molchanov = collapsed + 0.63576 * (1 - torch.sigmoid(1.87320 + 1.48695 * LOG_ALPHA))
    torch.testing.assert_close(penalty(LogUniform(), loc, LOG_ALPHA), molchanov, atol=1e-4, rtol=1e-4)


def test_penalty_of_a_gaussian_is_its_kl():
    scale = 0.1 * (0.5 * LOG_ALPHA).exp()
    truth = torch.distributions.kl_divergence(Normal(torch.full_like(scale, 0.1), scale), Normal(0.0, 2.0))
    torch.testing.assert_close(penalty(priors.Gaussian(2.0), 0.1, LOG_ALPHA), truth)


def test_penalty_of_student_t_at_the_closed_form_optimum():
    a, b, loc = 1.5, 0.02, 0.2
    moment = loc**2 * (1 + LOG_ALPHA.exp())
    gamma = (moment + 2 * b) / (3 + 2 * a)
    log_density = a * math.log(b) - math.lgamma(a) - (a + 1) * gamma.log() - b / gamma
    truth = 0.5 * gamma.log() + moment / (2 * gamma) - log_density - 0.5 * (loc**2 * LOG_ALPHA.exp()).log() - 0.5
    found = penalty(ScaleMixture(dist.InverseGamma(a, b)), loc, LOG_ALPHA)
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=0)


class SpikeAndSlab(priors.Prior):
    """A prior of one's own, with a discrete gamma and no code for it anywhere."""

    def sample(self, name, init):
        slab = pyro.sample(f"{name}_gamma", dist.Bernoulli(init.new_tensor(0.3)).expand(init.shape).to_event(init.dim()))
        return pyro.sample(name, dist.Normal(0.0, torch.where(slab > 0, 2.0, 0.1).to(init)).to_event(init.dim()))


class Global(priors.Prior):
    """A half-Cauchy under one scale for all weights, which has a prior of its own with the median log 2."""

    def sample(self, name, init):
        tau = pyro.sample(f"{name}_tau", dist.Exponential(init.new_tensor(1.0)))
        local = pyro.sample(f"{name}_gamma", dist.HalfCauchy(init.new_ones(())).expand(init.shape).to_event(init.dim()))
        return pyro.sample(name, dist.Normal(init.new_zeros(()), tau * local).to_event(init.dim()))


def test_atoms_are_summed_over():
    truth = torch.logaddexp(Normal(0.0, 2.0).log_prob(W) + math.log(0.3), Normal(0.0, 0.1).log_prob(W) + math.log(0.7))
    torch.testing.assert_close(log_marginal(SpikeAndSlab(), W), truth, rtol=1e-6, atol=1e-6)


def test_latents_above_stand_at_their_medians():
    found = scales(Global()).variance
    torch.testing.assert_close(
        log_marginal(Global(), W),
        log_marginal(ScaleMixture(dist.HalfCauchy(math.log(2.0)), on="scale"), W),
        atol=0.1,
        rtol=0,
    )
    assert len(found) > 1000


def test_looking_at_a_prior_leaves_the_random_state_alone():
    before = torch.get_rng_state()
    log_marginal(Global(), W)
    assert torch.equal(before, torch.get_rng_state())
