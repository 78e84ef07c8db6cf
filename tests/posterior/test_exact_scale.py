"""The exact posterior of a scale: against scipy, and its bound against the evidence."""

import copy
import itertools
import math
from contextlib import contextmanager

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy import integrate, special, stats
from torch.distributions import constraints
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.distributions import base_distribution
from pyro_vbd.distributions.positive import GeneralizedInverseGaussian
from pyro_vbd.posterior import exact_scale
from pyro_vbd.posterior.exact_scale import CollapsedScales, ExactScale
from pyro_vbd.priors import (
    GammaPrecision,
    GaussianUniform,
    HalfNormal,
    Horseshoe,
    Laplace,
    NormalGamma,
    RegularizedHorseshoe,
    SpikeAndSlab,
    StudentT,
    find_evidence,
)

ROLES = {"variance": 1.0, "scale": 2.0, "precision": -1.0}
TOTALS = [1e-6, 0.01, 1.0, 30.0]


def exact(hyperprior, on, total, n, registered=True):
    power = ROLES[on]
    evidence = find_evidence(type(hyperprior), on) if registered else None
    total = torch.tensor(total, dtype=torch.float64)
    return ExactScale(hyperprior, lambda g: g.pow(power), lambda v: v.pow(1 / power), total, n, evidence)


def number(value):
    return torch.tensor(value, dtype=torch.float64)


# --- log Z and E[1/v] against scipy --------------------------------------------------------------------------------------


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("n", [1.0, 2.0, 7.0, 40.0])
@pytest.mark.parametrize(("low", "high"), [(0.0, 1e3), (0.0, 0.5), (0.01, 2.0)])
def test_uniform_is_an_incomplete_gamma_function(low, high, n, registered):
    """(1/(b-a)) (S/2)^(1-n/2) [Gamma(n/2 - 1, S/2b) - Gamma(n/2 - 1, S/2a)], and scipy's quad where that has no name."""
    found = exact(dist.Uniform(number(low), number(high)), "variance", TOTALS, n, registered).evidence()
    for i, total in enumerate(TOTALS):
        best = np.clip(total / n, max(low, 1e-300), high)
        top = -0.5 * n * math.log(best) - 0.5 * total / best

        def integrand(x, power, total=total, top=top):
            return math.exp(x - (0.5 * n + power) * x - 0.5 * total * math.exp(-x) - top)

        ends = math.log(max(low, total / 1500)), math.log(high)
        if ends[0] >= ends[1]:
            continue
        peak = [min(max(math.log(best), ends[0]), ends[1])]
        size, more = (
            integrate.quad(integrand, *ends, args=(power,), points=peak, limit=400, epsabs=0, epsrel=1e-11)[0]
            for power in (0, 1)
        )
        expected = math.log(size / (high - low)) + top
        assert_close(found[0][i].item(), expected, rtol=1e-6, atol=1e-6)
        assert_close(found[1][i].item(), more / size, rtol=1e-6, atol=0)
        if n > 2:
            order = 0.5 * n - 1
            gammas = [special.gammaincc(order, 0.5 * total / end) if end else 0.0 for end in (high, low)]
            if gammas[0] - gammas[1] > 1e-12:
                closed = special.gammaln(order) + math.log((gammas[0] - gammas[1]) / (high - low))
                assert_close(found[0][i].item(), closed - order * math.log(0.5 * total), rtol=1e-6, atol=1e-6)


def test_uniform_of_a_single_weight_is_erfc():
    """facts of the paper's prior on [0, b]: Z = (2 sqrt(b) exp(-S/2b) - sqrt(2 pi S) erfc(sqrt(S/2b))) / b."""
    total, high = np.array(TOTALS), 2.0
    expected = 2 * math.sqrt(high) * np.exp(-0.5 * total / high)
    expected = (expected - np.sqrt(2 * np.pi * total) * special.erfc(np.sqrt(0.5 * total / high))) / high
    found = exact(dist.Uniform(number(0.0), number(high)), "variance", TOTALS, 1.0).evidence()[0]
    np.testing.assert_allclose(found.cpu(), np.log(expected), rtol=1e-6)


@pytest.mark.parametrize("n", [1.0, 6.0])
@pytest.mark.parametrize(("p", "a", "b"), [(1.0, 1.0, 1e-3), (-2.0, 0.1, 3.0), (0.3, 20.0, 0.5)])
def test_generalised_inverse_gaussian_is_conjugate(p, a, b, n):
    """GIG(p - n/2, a, b + S): densities, means and quantiles of scipy."""
    q = exact(GeneralizedInverseGaussian(number(p), number(a), number(b)), "variance", TOTALS, n)
    gamma = number([0.02, 0.3, 1.0, 5.0])
    median = q.quantile(torch.full((4,), 0.5))
    for i, total in enumerate(TOTALS):
        omega, scale = math.sqrt(a * (b + total)), math.sqrt((b + total) / a)
        theirs = stats.geninvgauss(p - 0.5 * n, omega, scale=scale)
        ours = q.log_prob(gamma[:, None].expand(4, 4))[:, i]
        np.testing.assert_allclose(ours.cpu(), theirs.logpdf(gamma.cpu()), rtol=1e-6, atol=1e-6)
        mean = special.kve(p - 0.5 * n - 1, omega) / special.kve(p - 0.5 * n, omega) / scale
        assert_close(q.evidence()[1][i].item(), mean, rtol=1e-6, atol=0)
        assert abs(theirs.cdf(median[i].item()) - 0.5) < 1e-4


@pytest.mark.parametrize("registered", [True, False])
@pytest.mark.parametrize("on", ["variance", "precision"])
def test_inverse_gamma_is_conjugate(on, registered):
    a, b, n = 1.5, 0.2, 3.0
    kind = dist.InverseGamma if on == "variance" else dist.Gamma
    q = exact(kind(number(a), number(b)), on, TOTALS, n, registered)
    draws, grid = q.sample((4000,)), number([0.05, 0.6, 4.0])
    for i, total in enumerate(TOTALS):
        shape, rate = a + 0.5 * n, b + 0.5 * total
        theirs = stats.invgamma(shape, scale=rate) if on == "variance" else stats.gamma(shape, scale=1 / rate)
        log_prob = q.log_prob(grid[:, None].expand(3, 4))[:, i]
        np.testing.assert_allclose(log_prob.cpu(), theirs.logpdf(grid.cpu()), rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(q.evidence()[1][i].item(), shape / rate, rtol=1e-6)
        assert stats.kstest(draws[:, i].cpu().numpy(), theirs.cdf).pvalue > 1e-4


def test_groups_of_several_sizes():
    total, n = number(TOTALS), number([1.0, 5.0, 2.0, 300.0])
    hyperprior = dist.HalfCauchy(number(0.5))
    whole = ExactScale(hyperprior, torch.square, torch.sqrt, total, n).evidence()
    for i in range(4):
        alone = exact(hyperprior, "scale", [TOTALS[i]], n[i].item()).evidence()
        assert_close(whole[0][i], alone[0][0])
        assert_close(whole[1][i], alone[1][0])


def test_hyperpriors_of_each_group_and_chunks(monkeypatch):
    """More groups than are held at once, each with a hyperprior of its own."""
    monkeypatch.setattr("pyro_vbd.posterior.exact_scale._CHUNK", 10)
    scale, total = torch.rand(23, dtype=torch.float64) + 0.1, torch.rand(23, dtype=torch.float64)
    hyperprior = dist.HalfNormal(scale, validate_args=True)
    q = ExactScale(hyperprior, torch.square, torch.sqrt, total, 2.0)
    found, median = q.evidence(), q.quantile(torch.full((23,), 0.5))
    with pytest.raises(ValueError, match="support"):
        hyperprior.log_prob(-scale)  # the user's own is as it was
    for i in (0, 9, 10, 22):
        alone = ExactScale(dist.HalfNormal(scale[i]), torch.square, torch.sqrt, total[i : i + 1], 2.0)
        assert_close(found[0][i], alone.evidence()[0][0])
        assert_close(median[i], alone.quantile(torch.full((1,), 0.5))[0])


@pytest.mark.parametrize("number_of_gammas", [2, 4])  # torch's Beta holds a vector of two, which is no vector of gammas
def test_a_hyperprior_whose_parameter_is_a_vector(number_of_gammas):
    totals = TOTALS[:number_of_gammas]
    hyperprior = dist.Beta(number(2.0), number(3.0)).expand([number_of_gammas])
    found, precision = exact(hyperprior, "variance", totals, 2.0).evidence()
    for i, total in enumerate(totals):
        size, more = (
            integrate.quad(
                lambda g, p=p, s=total: 12 * (1 - g) ** 2 * g ** (-p) * math.exp(-s / 2 / g),
                0,
                1,
                points=[total / 2] if total < 1 else None,
            )[0]
            for p in (0, 1)
        )
        assert_close(found[i], number(math.log(size)), rtol=1e-6, atol=1e-6)
        assert_close(precision[i], number(more / size), rtol=1e-6, atol=0.0)


def test_some_groups_of_a_model_by_hand_need_quadrature(float64):
    """A uniform prior whose closed form fails for two of four weights."""

    def model():
        gamma = pyro.sample("gamma", dist.Uniform(0.0, 2.0, validate_args=True).expand([4]).to_event(1))
        w = pyro.sample(
            "w", dist.Normal(0.0, gamma.sqrt()).to_event(1), infer={"init": torch.tensor([0.1, 1.0, 400.0, 500.0])}
        )
        return w.sum()

    guide = vbd.VBDGuide(model, scale_posterior="exact")
    guide()
    assert vbd.VBD_ELBO().terms(model, guide).kl.isfinite()
    gamma = guide.median()["gamma"]
    assert ((gamma > 0) & (gamma < 2)).all()
    assert (gamma[2:] > 1.99).all()  # exp(-S / 2 gamma) with S = 400^2: at the upper end


@pytest.mark.parametrize("total", [0.0, 1e-45, 1e-30, 1e15])
@pytest.mark.parametrize("make", [StudentT, Laplace, Horseshoe, GaussianUniform, GammaPrecision], ids=lambda m: m.__name__)
def test_extreme_sums_in_single_precision(make, total):
    prior = make()
    like = torch.zeros(())
    hyperprior = prior.hyperprior(like, **{k: like.new_full((), v) for k, v in prior.hyperparameters.items()})
    power = ROLES[prior.on]
    evidence = find_evidence(type(hyperprior), prior.on)
    args = lambda g: g.pow(power), lambda v: v.pow(1 / power), torch.full((3,), total), 1.0, evidence
    q = ExactScale(hyperprior, *args)
    assert q.remainder.isfinite().all()
    assert q.remainder.dtype == q.point.dtype == q.log_prob(q.point).dtype == torch.float32
    assert (q.remainder >= -1e-5).all()
    assert (q.point > 0).all()
    assert q.point.isfinite().all()


def test_single_precision_is_integrated_in_double_precision():
    found = []
    for dtype in (torch.float32, torch.float64):
        hyperprior = dist.Gamma(torch.tensor(5e3, dtype=dtype), torch.tensor(0.5, dtype=dtype))
        evidence = find_evidence(dist.Gamma, "precision")
        total = torch.ones(3, dtype=dtype)
        found.append(ExactScale(hyperprior, torch.reciprocal, torch.reciprocal, total, 1.0, evidence).evidence())
    assert_close(*found)


# --- many groups ----------------------------------------------------------------------------------------------------------

ALIKE = {
    "half-Cauchy": (lambda: dist.HalfCauchy(number(0.1)), "scale"),
    "half-normal": (lambda: dist.HalfNormal(number(1.0)), "scale"),
    "gamma": (lambda: dist.Gamma(number(1.5), number(0.4)), "precision"),
    "uniform": (lambda: dist.Uniform(number(0.01), number(2.0)), "variance"),
    "exponential": (lambda: dist.Exponential(number(0.5)), "variance"),
}


@pytest.mark.parametrize("n", [1.0, 9.0, 64.0])
@pytest.mark.parametrize("name", ALIKE)
def test_many_groups_of_one_density_are_found_between_few(name, n):
    """To six digits, over ten decades of S: by quadrature for each of a part of them."""
    make, on = ALIKE[name]
    hyperprior = make()
    total = n * 10 ** (10.0 * torch.rand(2001, dtype=torch.float64) - 8.0)
    with quadratures() as counted:
        many = exact(hyperprior, on, total.tolist(), n, registered=False)
        found = many.evidence()
    assert sum(counted) == 1000
    alone = exact(hyperprior, on, total[:300].tolist(), n, registered=False)
    for ours, theirs in zip(found, alone.evidence(), strict=True):
        assert_close(ours[:300], theirs, rtol=1e-6, atol=1e-6)
    assert_close(many.point[:300], alone.point, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ALIKE)
def test_quantiles_of_many_groups_are_found_between_few(name):
    make, on = ALIKE[name]
    total = 10 ** (8.0 * torch.rand(2100, dtype=torch.float64) - 6.0)
    p = torch.rand(3, 2100, dtype=torch.float64)
    with quadratures() as counted:
        q = exact(make(), on, total.reshape(2, 1050).tolist(), 1.0, registered=False)
        found = q.expand(torch.Size((3, 2, 1050))).quantile(p.reshape(3, 2, 1050))
    assert (sum(counted), found.shape) == (1000, (3, 2, 1050))
    alone = exact(make(), on, total[:200].tolist(), 1.0, registered=False).quantile(p[:, :200])
    assert_close(found.reshape(3, 2100)[:, :200], alone, rtol=1e-4, atol=0)


@contextmanager
def quadratures():
    """The numbers of groups that are integrated for, inside."""
    counted = []

    def counting(log_f, like, nodes, grid=exact_scale.grid):
        counted.append(like.numel())
        return grid(log_f, like, nodes)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact_scale, "grid", counting)
        yield counted


@pytest.mark.parametrize(
    ("scale", "n", "count"),
    [
        ([1.0] * 5000, 1.0, 5000),  # densities of their own
        (1.0, [1.0] * 5000, 5000),  # sizes of their own
        (1.0, 65.0, 5000),  # large groups
        (1.0, 1.0, 2000),  # few of them
    ],
    ids=["densities", "sizes", "large", "few"],
)
def test_other_groups_are_integrated_one_by_one(scale, n, count):
    with quadratures() as counted:
        n = number(n) if isinstance(n, list) else n
        q = ExactScale(dist.HalfCauchy(number(scale)), torch.square, torch.sqrt, torch.rand(count).double(), n)
        assert bool(q.evidence()[0].isfinite().all())
    assert sum(counted) == count


@pytest.mark.parametrize("total", [0.0, 2.0])
def test_many_groups_that_are_all_the_same(total):
    many = exact(dist.HalfCauchy(number(0.1)), "scale", [total] * 5000, 1.0)
    one = exact(dist.HalfCauchy(number(0.1)), "scale", [total], 1.0)
    for ours, theirs in zip(many.evidence(), one.evidence(), strict=True):
        assert_close(ours, theirs.expand(5000), rtol=1e-12, atol=0)


# --- a distribution ------------------------------------------------------------------------------------------------------


def test_it_is_a_distribution(device):
    q = exact(dist.HalfCauchy(number(1.0)), "scale", [[0.1, 1.0, 10.0]], 2.0)
    assert q.batch_shape == (1, 3)
    assert q.support is dist.HalfCauchy.support
    assert q.sample((5,)).shape == (5, 1, 3)
    assert q.rsample((5, 2)).device.type == device.type
    wide = q.expand(torch.Size((4, 1, 3)))
    assert wide.batch_shape == (4, 1, 3)
    assert wide.sample((2,)).shape == (2, 4, 1, 3)
    assert len(wide.sample().unique()) == 12
    assert_close(wide.point, q.point.expand(4, 1, 3))
    assert_close(wide.remainder, q.remainder.expand(4, 1, 3))
    assert wide.evidence() is q.evidence()  # solved once for all copies
    assert not q.rsample().requires_grad


def test_a_copy_along_an_inner_dimension_has_the_quantiles_of_its_group():
    q = exact(dist.HalfCauchy(number(1.0)), "scale", [[[0.1]], [[10.0]]], 2.0)
    wide = q.expand(torch.Size((2, 4, 3)))
    p = torch.rand(5, 2, 4, 3, dtype=torch.float64)
    found = wide.quantile(p)
    for i, j in itertools.product(range(4), range(3)):
        assert_close(found[..., i, j], q.quantile(p[..., i, None, j, None])[..., 0, 0])


def test_nothing_of_it_carries_a_gradient():
    scale, total = torch.ones((), requires_grad=True), torch.ones(3, requires_grad=True)
    q = ExactScale(dist.HalfCauchy(scale), torch.square, torch.sqrt, total, 2.0)
    assert not any(value.requires_grad for value in (q.point, q.remainder, q.rsample(), q.log_prob(torch.ones(3))))


def test_quantiles_rise_and_agree_with_draws():
    q = exact(dist.HalfCauchy(number(1.0)), "scale", TOTALS, 2.0)
    p = torch.linspace(0.05, 0.95, 7, dtype=torch.float64)
    quantiles = q.quantile(p[:, None].expand(7, 4))
    assert (quantiles.diff(dim=0) > 0).all()
    draws = q.sample((20_000,))
    for level, value in zip(p, quantiles, strict=True):
        share = (draws < value).double().mean(0)
        assert ((share - level).abs() < 4.5 * (level * (1 - level) / 20_000).sqrt()).all()


class Dice(dist.TorchDistribution):
    """A gamma of three values, listed in no order, whose masses may differ from group to group."""

    arg_constraints, support, has_enumerate_support = {}, constraints.positive, True
    values = (1.0, 0.01, 9.0)

    def __init__(self, masses):
        self.masses = masses
        super().__init__(masses.shape[:-1], validate_args=False)

    def enumerate_support(self, expand=True):
        return self.masses.new_tensor(self.values).reshape(-1, *(1,) * len(self.batch_shape)).expand(-1, *self.batch_shape)

    def log_prob(self, value):
        masses = [mass * (value == at) for mass, at in zip(self.masses.unbind(-1), self.values, strict=True)]
        return sum(masses).log()


@pytest.mark.parametrize("masses", [[0.2, 0.5, 0.3], [[0.2, 0.5, 0.3], [0.6, 0.3, 0.1], [0.1, 0.1, 0.8], [0.0, 0.5, 0.5]]])
@pytest.mark.parametrize(("on", "power"), [("variance", 1.0), ("scale", 2.0), ("precision", -1.0)])
def test_a_gamma_of_few_values_is_summed_over(masses, on, power, device):
    hyperprior, n = Dice(torch.tensor(masses, dtype=torch.float64)), 3.0
    q = exact(hyperprior, on, TOTALS, n).expand(torch.Size((2, 4)))
    variance = np.array(Dice.values) ** power
    with np.errstate(divide="ignore"):
        terms = np.log(np.broadcast_to(masses, (4, 3))) - 0.5 * n * np.log(variance)
    terms = terms - 0.5 * np.array(TOTALS)[:, None] / variance
    log_z, precision = (part.cpu().numpy() for part in q.evidence())
    shares = np.exp(terms - special.logsumexp(terms, 1, keepdims=True))
    np.testing.assert_allclose(log_z, special.logsumexp(terms, 1), rtol=1e-12)
    np.testing.assert_allclose(precision, (shares / variance).sum(1), rtol=1e-12)
    at = torch.tensor(Dice.values, dtype=torch.float64).reshape(3, 1, 1).expand(3, 2, 4)
    np.testing.assert_allclose(q.log_prob(at).exp()[:, 1].cpu().numpy(), shares.T, rtol=1e-12)
    below = np.cumsum(shares[:, [1, 0, 2]], 1)  # in the order of the values
    for index, value in enumerate((0.01, 1.0, 9.0)):
        low = below[:, index - 1] if index else np.zeros(4)
        middle = torch.as_tensor(0.5 * (low + below[:, index]), device=device).expand(2, 4)
        wide = torch.as_tensor(below[:, index] - low > 1e-9, device=device).expand(2, 4)
        assert (q.quantile(middle)[wide] == value).all()
    counts = torch.stack([(q.sample((5000,)) == value).double().mean(0) for value in Dice.values]).cpu().numpy()
    shares = shares.T[:, None]
    assert (abs(counts - shares) < 4.5 * np.sqrt(shares * (1 - shares) / 5000) + 1e-9).all()


def test_collapsed_scales_stand_at_the_point():
    q = exact(dist.HalfCauchy(number(1.0)), "scale", TOTALS, 2.0)
    with CollapsedScales():
        value = pyro.sample("g", q.to_event(1))
        other = pyro.sample("other", dist.Normal(0.0, 1.0))
        known = pyro.sample("known", q.to_event(1), obs=torch.ones(4))
    assert_close(value, q.point)
    assert other != 0.0
    assert (known == 1.0).all()
    assert_close(q.point.square(), 1.0 / q.evidence()[1])


# --- the bound against the evidence --------------------------------------------------------------------------------------

NOISE = 0.5
REGRESSIONS = {
    "uniform": (GaussianUniform(0.0, 5.0), stats.uniform(0, 5.0), "variance"),
    "inverse gamma": (StudentT(3.0, 0.5), stats.invgamma(1.5, scale=0.375), "variance"),
    "gamma precision": (GammaPrecision(1.5, 0.375), stats.gamma(1.5, scale=1 / 0.375), "precision"),
    "half-Cauchy": (Horseshoe(0.7), stats.halfcauchy(scale=0.7), "scale"),
    "exponential": (Laplace(0.6), stats.expon(scale=0.72), "variance"),
}
EVERY_REGRESSION = pytest.mark.parametrize("name", REGRESSIONS)


def data(noise=NOISE, size=12):
    generator = torch.Generator(device="cpu").manual_seed(3)
    x = torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")
    y = 0.8 * x + noise * torch.randn(size, generator=generator, dtype=torch.float64, device="cpu")
    return x.numpy(), y.numpy()


def regression(prior, noise=NOISE):
    x, y = (torch.as_tensor(part, device=torch.empty(()).device) for part in data(noise))

    def model():
        w = prior.sample("w", torch.full((1,), 0.6, dtype=torch.float64))
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", dist.Normal(w.squeeze(-1) * x, noise), obs=y)

    return model


def by_quadrature(name, loc, deviation, noise=NOISE):
    """Log evidence; and the bound of q(w) and its exact q(gamma), by two-dimensional integration of the joint density."""
    _, density, on = REGRESSIONS[name]
    x, y = data(noise)
    sharp = (x**2).sum() / noise**2
    centre, width = (x * y).sum() / (x**2).sum(), sharp**-0.5
    nodes, weights = np.polynomial.legendre.leggauss(80)
    low, high = (math.log(min(max(end, 1e-9), 1e7)) for end in density.support())
    edges = np.linspace(low, high, 41)
    half = 0.5 * np.diff(edges)
    t = (edges[:-1, None] + half[:, None] * (1 + nodes[:, None, None].T[0])).ravel()
    dt = (half[:, None] * weights).ravel()
    variance = np.exp(t) ** ROLES[on]
    log_p_gamma = density.logpdf(np.exp(t)) + t

    def likelihood(w):
        return stats.norm(w[:, None] * x, noise).logpdf(y).sum(1)

    def prior_of(w):
        return stats.norm(0, np.sqrt(variance)).logpdf(w[:, None])

    w = centre + 10 * width * nodes
    joint = likelihood(w)[:, None] + prior_of(w) + log_p_gamma + np.log(10 * width * weights)[:, None] + np.log(dt)
    evidence = special.logsumexp(joint)

    w = loc + 9 * deviation * nodes
    log_q_w = stats.norm(loc, deviation).logpdf(w)
    total = loc**2 + deviation**2
    log_q_gamma = log_p_gamma - 0.5 * np.log(variance) - 0.5 * total / variance
    log_q_gamma = log_q_gamma - special.logsumexp(log_q_gamma + np.log(dt))
    mass = np.exp(log_q_w + np.log(9 * deviation * weights))[:, None] * np.exp(log_q_gamma + np.log(dt))
    inside = likelihood(w)[:, None] + prior_of(w) + log_p_gamma - log_q_w[:, None] - log_q_gamma
    return evidence, (mass * np.where(mass > 0, inside, 0.0)).sum() / mass.sum()


def set_to(guide, loc, deviation):
    q = guide.posteriors["q/w"]
    q.loc.data.fill_(loc)
    q.log_var.data.fill_(2 * math.log(deviation))


@EVERY_REGRESSION
@pytest.mark.parametrize(("loc", "deviation"), [(0.7, 0.15), (0.1, 0.5), (-0.4, 0.05)])
def test_the_bound_is_the_one_of_the_joint_density(name, loc, deviation, float64):
    """VBD_ELBO is an unbiased estimate of E_q[log p(y, w, gamma) - log q(w) - log q(gamma)], below the evidence."""
    model = regression(REGRESSIONS[name][0])
    guide = vbd.VBDGuide(model, scale_posterior="exact")
    guide()
    set_to(guide, loc, deviation)
    evidence, bound = by_quadrature(name, loc, deviation)
    assert bound < evidence
    x, y = data()
    residual = (y - loc * x) ** 2 + deviation**2 * x**2
    expected = (-0.5 * residual / NOISE**2 - 0.5 * math.log(2 * math.pi * NOISE**2)).sum()
    terms = vbd.VBD_ELBO().terms(model, guide)
    assert_close(expected - terms.kl.item(), bound, rtol=1e-6, atol=1e-6)
    draws = torch.tensor([vbd.VBD_ELBO().terms(model, guide).elbo.item() for _ in range(100)])
    assert abs((draws.mean() - bound) / (draws.std() / 10)) < 4


@EVERY_REGRESSION
def test_the_best_bound_is_tight_where_the_data_tell_the_weight(name, float64):
    """A single weight under little noise: gamma's posterior hardly depends on where in q(w) the weight is."""
    noise = 0.01
    model = regression(REGRESSIONS[name][0], noise)
    guide = vbd.VBDGuide(model, scale_posterior="exact")
    guide()
    x, y = data(noise)
    loc, deviation = (x * y).sum() / (x**2).sum(), noise * (x**2).sum() ** -0.5
    set_to(guide, loc, deviation)
    evidence, _ = by_quadrature(name, loc, deviation, noise)
    residual = (y - loc * x) ** 2 + deviation**2 * x**2
    expected = (-0.5 * residual / noise**2 - 0.5 * math.log(2 * math.pi * noise**2)).sum()
    bound = expected - vbd.VBD_ELBO().terms(model, guide).kl.item()
    assert 0 < evidence - bound < 1e-3


@EVERY_REGRESSION
def test_the_lognormal_bound_is_below_the_exact_one(name, float64):
    """For a given q(w) no other q(gamma) has a higher bound; and a learned one comes close to it."""
    model = regression(REGRESSIONS[name][0])
    means = {}
    for word in ("exact", "lognormal"):
        guide = vbd.VBDGuide(model, scale_posterior=word)
        guide()
        set_to(guide, 0.7, 0.15)
        elbo = vbd.VBD_ELBO(num_particles=50, vectorize_particles=True, max_plate_nesting=1)
        if word == "lognormal":
            free = list(guide.posteriors["q/w_gamma"].parameters())
            optimizer = torch.optim.Adam(free, 0.08)
            for _ in range(80):
                optimizer.zero_grad()
                elbo.differentiable_loss(model, guide).backward()
                optimizer.step()
        draws = torch.tensor([elbo.loss(model, guide) for _ in range(30)])
        means[word] = -draws.mean(), draws.std() / 30**0.5
    gap = means["exact"][0] - means["lognormal"][0]
    error = (means["exact"][1] ** 2 + means["lognormal"][1] ** 2) ** 0.5
    assert gap > -4 * error
    assert gap < 0.15
    assert means["lognormal"][0] - 4 * means["lognormal"][1] < by_quadrature(name, 0.7, 0.15)[0]


@pytest.mark.parametrize("scale_posterior", ["exact", "lognormal"])
@EVERY_REGRESSION
def test_pyros_elbo_has_the_same_expectation(name, scale_posterior, float64):
    """Trace_ELBO draws gamma and takes log p - log q at the draw; VBD_ELBO has closed forms."""
    model = regression(REGRESSIONS[name][0])
    guide = vbd.VBDGuide(model, scale_posterior=scale_posterior, init_scale=0.4)
    guide()
    set_to(guide, 0.7, 0.3)
    draws = {}
    for kind in (Trace_ELBO, vbd.VBD_ELBO):
        elbo = kind(num_particles=200, vectorize_particles=True, max_plate_nesting=1)
        draws[kind] = torch.tensor([elbo.loss(model, guide) for _ in range(25)])
    difference = draws[Trace_ELBO].mean() - draws[vbd.VBD_ELBO].mean()
    error = sum(d.var() / len(d) for d in draws.values()) ** 0.5
    assert abs(difference / error) < 4
    assert error < 0.1


@EVERY_REGRESSION
def test_gradients_are_those_of_the_bound(name, float64):
    """Of -log Z - (log sigma^2 + 1) / 2 by scipy's quad, with central differences in the mean and the log variance."""
    prior, density, on = REGRESSIONS[name]
    guide = vbd.VBDGuide(regression(prior), scale_posterior="exact")
    guide()
    set_to(guide, 0.4, 0.3)
    q = guide.posteriors["q/w"]
    kl = vbd.VBD_ELBO().terms(guide.model, guide).kl
    grads = torch.autograd.grad(kl, [q.loc, q.log_var])

    def penalty(loc, log_var):
        total = loc**2 + math.exp(log_var)
        low, high = (math.log(min(max(end, 1e-9), 1e9)) for end in density.support())

        def integrand(t):
            v = math.exp(t) ** ROLES[on]
            return math.exp(density.logpdf(math.exp(t)) + t - 0.5 * math.log(v) - 0.5 * total / v)

        size = sum(
            integrate.quad(integrand, *ends, epsabs=0, epsrel=1e-10)[0] for ends in ((low, -1.0), (-1.0, min(3.0, high)))
        )
        size += integrate.quad(integrand, 3.0, high, epsabs=0, epsrel=1e-10)[0] if high > 3.0 else 0.0
        return -math.log(size) - 0.5 * (log_var + 1)

    loc, log_var, step = 0.4, 2 * math.log(0.3), 1e-4
    assert_close(kl.item(), penalty(loc, log_var), rtol=1e-6, atol=1e-6)
    numeric = [
        (penalty(loc + step, log_var) - penalty(loc - step, log_var)) / (2 * step),
        (penalty(loc, log_var + step) - penalty(loc, log_var - step)) / (2 * step),
    ]
    np.testing.assert_allclose([grad.item() for grad in grads], numeric, rtol=1e-4, atol=1e-6)


# --- in a guide ----------------------------------------------------------------------------------------------------------


PRIORS = [
    StudentT(),
    GaussianUniform(per="layer"),
    RegularizedHorseshoe(per="input", global_scale=0.3),
    NormalGamma(0.5, floor=1e-6),
    SpikeAndSlab(),
]


@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_a_guide_trains_and_goes_on_from_a_checkpoint(prior, tmp_path):
    x, y = torch.randn(30, 4), torch.randn(30, 2)

    def run(epochs, file):
        pyro.set_rng_seed(0)
        model = vbd.Regressor(torch.nn.Linear(4, 2), prior, num_data=30)
        guide = vbd.VBDGuide(model, scale_posterior="exact")
        fit = vbd.fit(model, guide, [(x, y)], epochs=epochs, checkpoint=tmp_path / file, progress=False)
        assert all(math.isfinite(record["loss"]) for record in fit.history)
        return guide

    whole = run(4, "whole").state_dict()
    run(2, "part")
    resumed = run(4, "part").state_dict()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name])


@pytest.mark.parametrize("prior", PRIORS, ids=str)
def test_a_guide_moves_to_double_precision(prior):
    guide = vbd.VBDGuide(vbd.lift(torch.nn.Linear(4, 2), prior), scale_posterior="exact")
    single = guide.median()
    double = copy.deepcopy(guide).double().median()
    for site, value in double.items():
        assert value.dtype == torch.float64
        assert_close(value.float(), single[site], rtol=2e-3, atol=1e-8)


def test_the_exact_posterior_knows_the_noise_that_a_delta_does_not(float64):
    """Spread of gamma given one weight: that of InverseGamma(2, ...), not 0."""
    guide = vbd.VBDGuide(regression(StudentT(3.0, 0.5)), scale_posterior="exact")
    guide()
    low, high = guide.quantiles([0.05, 0.95])["w_gamma"].flatten().tolist()
    q = guide.posteriors["q/w"]
    total = (q.loc.square() + q.log_var.exp()).item()
    theirs = stats.invgamma(2.0, scale=0.375 + 0.5 * total)
    np.testing.assert_allclose([low, high], theirs.ppf([0.05, 0.95]), rtol=1e-3)
    base = base_distribution(pyro.poutine.trace(guide).get_trace().nodes["w_gamma"]["fn"])
    assert isinstance(base, ExactScale)


def test_half_normal_by_quadrature_is_the_product_density(float64):
    """With the weight known, S = w^2, log Z is log K0(|w|/s) / (pi s) and a constant, whatever is registered."""
    w = np.array([1e-4, 0.3, 2.0])
    prior = HalfNormal(0.7)
    assert find_evidence(dist.HalfNormal, "scale") is None
    found = exact(prior.hyperprior(number(0.0), scale=number(0.7)), "scale", w**2, 1.0).evidence()[0].cpu()
    np.testing.assert_allclose(
        found, np.log(special.k0(w / 0.7) / (math.pi * 0.7)) + 0.5 * math.log(2 * math.pi), rtol=1e-6
    )
