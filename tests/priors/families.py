"""What every family of priors must satisfy, against scipy's densities and brute force: one subclass for each family.

Nothing here asks the library for a density, an optimum or an integral that it checks: those of a family are written out
anew in its test file, with scipy.stats.
"""

import copy
import math
import pickle

import numpy as np
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from scipy import stats
from torch import nn
from torch.testing import assert_close

import pyro_vbd as vbd
from pyro_vbd.distributions import base_distribution
from pyro_vbd.posterior.exact_scale import ExactScale
from pyro_vbd.priors import Learned, find_evidence, find_optimum
from pyro_vbd.testing import check_prior

CASES = 25
VARIANCES = {"variance": lambda gamma: gamma, "scale": np.square, "precision": lambda gamma: 1.0 / gamma}
BAD_NUMBERS = [-1.0, 0.0, math.nan, math.inf, True, "1", None, torch.ones(3), Learned(-1.0), Learned(math.nan)]
BAD_DISTRIBUTIONS = [
    dist.Normal(1.0, 1.0),
    dist.Gamma(torch.ones(3), 1.0),
    dist.Poisson(3.0),
    dist.Dirichlet(torch.ones(3)),
]

#: How the weights of a module with its output dimension first, or second, are summed over what shares one gamma.
SUMMED = {
    False: {
        "weight": (),
        "output": (1, 2, 3),
        "filter": (1, 2, 3),
        "input": (0, 2, 3),
        "kernel": (2, 3),
        "layer": (0, 1, 2, 3),
    },
    True: {
        "weight": (),
        "output": (0, 2, 3),
        "filter": (0, 2, 3),
        "input": (1, 2, 3),
        "kernel": (2, 3),
        "layer": (0, 1, 2, 3),
    },
}


class Above:
    """A scipy distribution of positive numbers cut off below a floor, normalised."""

    def __init__(self, base, floor):
        self.base, self.floor = base, floor

    def logpdf(self, x):
        return np.where(x >= self.floor, self.base.logpdf(x) - self.base.logsf(self.floor), -np.inf)

    def cdf(self, x):
        return np.where(x >= self.floor, 1.0 - self.base.sf(x) / self.base.sf(self.floor), 0.0)

    def support(self):
        return self.floor, self.base.support()[1]


def argmin(loss, cases):
    """The minimisers of ``loss(log gamma)``, which has one minimum, for all cases at once: a grid that is zoomed in."""
    low, high = np.full(cases, -70.0), np.full(cases, 40.0)
    for _ in range(9):
        x = np.linspace(low, high, 201)
        centre = x[loss(x).argmin(0), np.arange(cases)]
        step = (high - low) / 200
        low, high = centre - step, centre + step
    return np.exp(centre)


def log_integral(log_f, low, high):
    """Logarithm of the integral of exp(log_f) over [low, high], by Gauss's rule, closely at the peak and the ends."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    coarse, small = np.linspace(low, high, 3001), np.geomspace(1e-8, 1.0, 100)
    peak = coarse[log_f(coarse).argmax()]
    parts = [coarse[::10], np.linspace(peak - 1.5, peak + 1.5, 301), low + small, high - small]
    edges = np.unique(np.clip(np.concatenate(parts), low, high))
    half = 0.5 * np.diff(edges)[:, None]
    values = log_f(edges[:-1, None] + half + half * nodes) + np.log(half * weights)
    return values.max() + np.log(np.exp(values - values.max()).sum())


def at(prior, **dtype):
    """The hyperprior of one gamma of a prior whose hyperparameters are numbers."""
    like = torch.zeros((), **dtype)
    return prior.hyperprior(like, **{name: like.new_full((), value) for name, value in prior.hyperparameters.items()})


def as_tensor(values, dtype=torch.float64):
    return torch.tensor(np.asarray(values), dtype=dtype)


def as_numpy(tensor):
    return tensor.detach().cpu().double().numpy()


def everything():
    """A module for each way in which torch.nn lays out the dimensions of a weight."""
    return nn.ModuleDict(
        {
            "linear": nn.Linear(3, 2, bias=False),
            "conv": nn.Conv2d(3, 2, (2, 1), bias=False),
            "transposed": nn.ConvTranspose2d(3, 2, (2, 1), bias=False),
            "embedding": nn.Embedding(4, 3),
        }
    )


class FamilyTests:
    """Abstract. A family says how it is made, its density, and its marginal where that has a closed form."""

    make: type
    on: str
    #: From where to where a hyperparameter is drawn, on a logarithmic scale; those that may be learned or inferred.
    ranges: dict
    #: Arguments that are numbers and nothing else, and positive.
    numbers: tuple = ()
    #: Arguments of the prior that stands for the family where its hyperparameters are of no consequence.
    defaults: dict = {}
    #: What else to pass where its hyperparameters are learned or inferred.
    beside: dict = {}
    discrete = False

    def density(self, **h):
        """The distribution of gamma, of scipy's kind."""
        raise NotImplementedError

    def log_marginal(self, w, **h):
        """Logarithm of p(w), or None."""
        return None

    def draw(self, rng):
        """Random hyperparameters."""
        return {name: float(np.exp(rng.uniform(*np.log(ends)))) for name, ends in self.ranges.items()}

    def variance(self, gamma, **h):
        """The prior variance of a weight."""
        return VARIANCES[self.on](gamma)

    # --- brute force -----------------------------------------------------------------------------------------------------

    def cases(self, rng, count=CASES, largest=500):
        """Arrays of S, of n and of each hyperparameter."""
        n = rng.choice([1, 1, 2, 5, 30, largest], count).astype(float)
        rows = [self.draw(rng) for _ in range(count)]
        return n * 10 ** rng.uniform(-8, 3, count), n, {name: np.array([row[name] for row in rows]) for name in rows[0]}

    def best(self, total, n, **h):
        """The minimiser of J, for arrays of S, n and hyperparameters."""

        def j(x):
            variance = self.variance(np.exp(x), **h)
            with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
                loss = 0.5 * n * np.log(variance) + 0.5 * total / variance - self.density(**h).logpdf(np.exp(x))
            return np.where(np.isnan(loss), np.inf, loss)

        return argmin(j, len(total))

    def evidence(self, total, n, end=math.inf, **h):
        """log Z and E[1/v] of the exact q(gamma) up to ``end``, for one S and n."""
        first, last = self.density(**h).support()
        low, high = (np.clip(np.log(max(bound, 1e-300)), -150.0, 150.0) for bound in (first, min(last, end)))

        def log_f(x, power):
            variance = self.variance(np.exp(x), **h)
            with np.errstate(divide="ignore", over="ignore"):
                return (
                    self.density(**h).logpdf(np.exp(x)) + x - (0.5 * n + power) * np.log(variance) - 0.5 * total / variance
                )

        size, slope = (log_integral(lambda x, p=p: log_f(x, p), low, high) for p in (0, 1))
        return size, np.exp(slope - size)

    # --- formulas --------------------------------------------------------------------------------------------------------

    def test_the_optimum_is_the_argmin_of_j(self):
        total, n, h = self.cases(np.random.default_rng(0))
        expected = self.best(total, n, **h)
        found = []
        for i in range(CASES):
            prior = self.make(**{name: float(values[i]) for name, values in h.items()})
            hyperprior = at(prior, dtype=torch.float64)
            optimum = find_optimum(type(hyperprior), self.on, prior.link())
            found.append(float(optimum(hyperprior, as_tensor(total[i]), float(n[i]))))
            by_tensor = optimum(hyperprior, as_tensor(total[i]), as_tensor(n[i]))  # groups of several sizes
            assert_close(float(by_tensor), found[-1], rtol=1e-9, atol=0)
        # an argmin by values alone is good to the root of the rounding error, over that of the curvature
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_optimum_is_inside_the_support_at_extreme_sums(self, dtype):
        total = torch.tensor([0.0, 1e-45, 1e-38, 1e-30, 1e-3, 1e12, 1e30], dtype=dtype)
        prior = self.make(**self.defaults)
        hyperprior = at(prior, dtype=dtype)
        for n in (1.0, 1e6, torch.arange(1.0, 8).to(dtype)):
            gamma = find_optimum(type(hyperprior), self.on, prior.link())(hyperprior, total, n)
            assert gamma.dtype == dtype
            assert (gamma > 0).all()
            assert hyperprior.support.check(gamma).all()
            # the Jacobian of torch's InverseGamma holds the square of gamma
            assert hyperprior.log_prob(gamma)[total < 1e15].isfinite().all()
            linked = gamma if prior.link() is None else prior.link()(gamma)
            deviation = {"variance": linked.sqrt(), "scale": linked, "precision": linked.rsqrt()}[self.on]
            assert (deviation > 0).all()
            assert deviation.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_a_dead_group_leaves_no_denormal_variance(self, dtype):
        """It may be flushed to 0, or be 0: with hyperparameters at the lower ends of their ranges."""
        prior = self.make(**{**self.defaults, **{name: low for name, (low, _) in self.ranges.items()}})
        hyperprior = at(prior, dtype=dtype)
        gamma = find_optimum(type(hyperprior), self.on, prior.link())(hyperprior, torch.zeros(1, dtype=dtype), 4.0)
        assert self.variance(as_numpy(gamma)) > 0.99 * torch.finfo(dtype).tiny

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    def test_the_density_is_scipys(self, dtype):
        rng = np.random.default_rng(1)
        for _ in range(5):
            h = self.draw(rng)
            low, high = self.density(**h).support()
            gamma = np.exp(rng.uniform(np.log(max(low, 1e-4)) + 1e-3, np.log(min(high, 1e3)) - 1e-3, 20))
            found = at(self.make(**h), dtype=dtype).log_prob(as_tensor(gamma, dtype))
            assert found.dtype == dtype
            expected = self.density(**h).logpdf(gamma)
            tolerance = 1e-7 if dtype == torch.float64 else 2e-4
            np.testing.assert_allclose(as_numpy(found), expected, rtol=tolerance, atol=tolerance)

    def test_draws_follow_the_density(self):
        h = self.draw(np.random.default_rng(2))
        with pyro.plate("draws", 3000, dim=-2), poutine.trace() as capture:
            self.make(**h).sample("w", torch.zeros(2, dtype=torch.float64))
        gamma, w = (as_numpy(capture.trace.nodes[site]["value"]) for site in ("w_gamma", "w"))
        gamma, w = gamma.reshape(-1, 2), w.reshape(-1, 2)
        assert stats.kstest(gamma.ravel(), self.density(**h).cdf).pvalue > 1e-4
        standard = w / np.sqrt(self.variance(gamma, **h))
        assert stats.kstest(standard.ravel(), stats.norm.cdf).pvalue > 1e-4

    def test_the_marginal_of_a_weight(self):
        """log Z at n = 1 and S = w^2 is log p(w) + log(2 pi) / 2: by quadrature, and as it is registered."""
        rng = np.random.default_rng(3)
        for _ in range(4):
            h = self.draw(rng)
            prior = self.make(**h)
            w = 10 ** rng.uniform(-3, 1.5, 6)
            expected = self.log_marginal(w, **h)
            if expected is None:
                expected = np.array([self.evidence(x * x, 1.0, **h)[0] for x in w]) - 0.5 * math.log(2 * math.pi)
            else:
                own = np.array([self.evidence(x * x, 1.0, **h)[0] for x in w]) - 0.5 * math.log(2 * math.pi)
                np.testing.assert_allclose(own, expected, rtol=1e-7, atol=1e-7)
            for evidence in self.ways(prior):
                found = as_numpy(self.exact(prior, w * w, 1.0, evidence).evidence()[0]) - 0.5 * math.log(2 * math.pi)
                np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)

    def test_the_exact_posterior_of_gamma(self):
        """log Z and E[1/v], by quadrature and as registered, against Gauss's rule, for groups of several sizes."""
        total, n, h = self.cases(np.random.default_rng(4), 8, largest=2000)
        for i in range(len(total)):
            case = {name: float(values[i]) for name, values in h.items()}
            expected = self.evidence(total[i], n[i], **case)
            prior = self.make(**case)
            for evidence in self.ways(prior):
                found = self.exact(prior, total[i : i + 1], float(n[i]), evidence).evidence()
                for ours, theirs in zip(found, expected, strict=True):
                    np.testing.assert_allclose(ours.item(), theirs, rtol=2e-6, atol=2e-6)

    def ways(self, prior):
        """The integral (the sum, of a discrete gamma), and what is registered."""
        return {None, self.registered(prior)}

    def registered(self, prior):
        return find_evidence(type(at(prior, dtype=torch.float64)), self.on) if prior.link() is None else None

    def exact(self, prior, total, n, evidence):
        """The library's q(gamma), with the factor that a guide would find."""
        link = prior.link()
        power = {"variance": 1.0, "scale": 2.0, "precision": -1.0}[self.on]

        def variance(gamma):
            return (gamma if link is None else link(gamma)).pow(power)

        def inverse(v):
            return v.pow(1.0 / power) if link is None else link.inv(v.pow(1.0 / power))

        return ExactScale(at(prior, dtype=torch.float64), variance, inverse, as_tensor(total), n, evidence)

    @pytest.mark.parametrize("per", ["weight", "output"])
    @pytest.mark.parametrize("scale_posterior", ["delta", "exact"])
    def test_the_kl_is_that_of_monte_carlo(self, scale_posterior, per):
        rng = np.random.default_rng(5)
        h = self.draw(rng)
        prior = self.make(**h, per=per)
        loc, log_var = rng.normal(size=(2, 3)), rng.uniform(-4, 0, (2, 3))

        def model():
            return prior.sample("w", as_tensor(loc)).sum()

        guide = vbd.VBDGuide(model, scale_posterior=scale_posterior)
        guide()
        guide.posteriors["q/w"].log_var.data.copy_(as_tensor(log_var))
        kl = vbd.VBD_ELBO(hyperprior_constant=True).terms(model, guide).kl_by_site
        draws = {site: as_numpy(value) for site, value in guide.sample(200_000).items()}
        squares, groups = loc**2 + np.exp(log_var), loc.size if per == "weight" else 2
        total, n = squares.reshape(groups, -1).sum(1), loc.size / groups
        log_q = stats.norm(loc, np.exp(0.5 * log_var)).logpdf(draws["w"]).sum((1, 2))
        variance = self.variance(draws["w_gamma"], **h)
        log_p = stats.norm(0.0, np.sqrt(variance)).logpdf(draws["w"]).sum((1, 2))
        if scale_posterior == "exact":  # q(gamma) = p(gamma) v^(-n/2) exp(-S/2v) / Z
            v = variance.reshape(len(variance), groups)
            log_z = sum(self.evidence(s, n, **h)[0] for s in total)
            terms = log_q - log_p - 0.5 * (n * np.log(v) + total / v).sum(1) - log_z
            assert set(kl) == {"w", "w_gamma"}
            expected = sum(kl.values()).item()
        else:
            best = self.best(total, n, **{name: np.full(groups, value) for name, value in h.items()})
            assert_close(as_tensor(draws["w_gamma"][0].ravel()), as_tensor(best), rtol=1e-5, atol=0)
            np.testing.assert_allclose(kl["w_gamma"].item(), -self.density(**h).logpdf(best).sum(), rtol=1e-5, atol=1e-5)
            terms, expected = log_q - log_p, kl["w"].item()
        assert abs((terms.mean() - expected) / (terms.std() / len(terms) ** 0.5)) < 4

    def test_the_truth_kit_passes(self, device):
        report = check_prior(self.make(**self.defaults), device=device, num_samples=100_000)
        assert set(report.values()) == {"passed"}, report

    # --- in networks -----------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("per", ["weight", "output", "filter", "input", "kernel", "layer"])
    def test_sharing_in_a_network(self, per, float64):
        """Gammas of each layer at the argmin of J for its groups, whichever way round its dimensions are."""
        h = self.draw(np.random.default_rng(6))
        network = vbd.lift(everything(), self.make(**h, per=per))
        guide = vbd.VBDGuide(network)
        median = guide.median()
        for name, module in network.net.items():
            site = f"{name}.weight"
            dims = [d for d in SUMMED[name in ("transposed", "embedding")][per] if d < module.weight.dim()]
            q = guide.posteriors[f"q/{name}/weight"]
            squares = q.loc.square() + q.log_var.exp()
            total = squares.sum(dims, keepdim=True) if dims else squares
            n = squares.numel() / total.numel()
            groups = total.numel()
            best = self.best(as_numpy(total).ravel(), np.full(groups, n), **{k: np.full(groups, v) for k, v in h.items()})
            assert median[f"{site}_gamma"].shape == total.shape
            np.testing.assert_allclose(as_numpy(median[f"{site}_gamma"]).ravel(), best, rtol=1e-5)

    def test_a_number_for_the_global_scale(self, float64):
        """W ~ N(0, tau^2 v): gamma's optimum is that of S / tau^2."""
        h = self.draw(np.random.default_rng(7))
        guide = vbd.VBDGuide(vbd.lift(nn.Linear(3, 2), self.make(**h, per="input", global_scale=0.3)))
        q = guide.posteriors["q/weight"]
        total = as_numpy((q.loc.square() + q.log_var.exp()).sum(0)) / 0.3**2
        best = self.best(total, np.full(3, 2.0), **{k: np.full(3, v) for k, v in h.items()})
        np.testing.assert_allclose(as_numpy(guide.median()["weight_gamma"]).ravel(), best, rtol=1e-5)

    @pytest.mark.parametrize("scale_posterior", ["delta", "lognormal", "exact"])
    @pytest.mark.parametrize("kind", ["learned", "inferred"])
    def test_a_global_scale_is_learned_or_inferred(self, kind, scale_posterior):
        tau = Learned(0.5) if kind == "learned" else dist.HalfCauchy(1.0)
        model = vbd.Regressor(nn.Linear(3, 2), self.make(**self.moderate(), per="output", global_scale=tau), num_data=20)
        if kind == "learned" and scale_posterior == "exact":
            with pytest.raises(ValueError, match=r"'weight'.*\['weight_gamma'\] .*, or a parameter multiplies it"):
                vbd.VBDGuide(model, scale_posterior=scale_posterior)
            return
        if (guide := self.guide(model, scale_posterior, learned=kind == "learned")) is None:
            return
        before = self.value_of("weight_global_scale", guide)
        self.fit(model, guide)
        assert self.value_of("weight_global_scale", guide) != before
        # inferred, it is a factor beside gamma, which keeps its optimum
        assert ("q/weight_gamma" in guide.optima) == (kind == "inferred" and scale_posterior != "lognormal")

    @pytest.mark.parametrize("scale_posterior", ["delta", "lognormal"])
    @pytest.mark.parametrize("kind", ["learned", "inferred"])
    def test_hyperparameters_are_learned_or_inferred(self, kind, scale_posterior):
        start = self.moderate()
        values = {
            name: Learned(value) if kind == "learned" else dist.LogNormal(math.log(value), 0.3)
            for name, value in start.items()
            if name in self.ranges
        }
        prior = self.make(**{**start, **self.beside, **values}, per="input")
        model = vbd.Regressor(nn.Linear(3, 2), prior, num_data=20)
        if (guide := self.guide(model, scale_posterior)) is None:
            return
        before = {name: self.value_of(f"weight_{name}", guide) for name in values}
        self.fit(model, guide)
        for name in values:
            assert self.value_of(f"weight_{name}", guide) != before[name]

    def test_hyperparameters_that_vary_have_no_exact_posterior(self):
        for name, value in self.moderate().items():
            if name in self.ranges:
                prior = self.make(**{**self.moderate(), **self.beside, name: dist.LogNormal(math.log(value), 0.3)})
                with pytest.raises(ValueError, match=r"holds a latent or a parameter, .*: use 'lognormal'"):
                    vbd.VBDGuide(vbd.lift(nn.Linear(3, 2), prior), scale_posterior="exact")

    def guide(self, model, scale_posterior, learned=False):
        """A guide; None where gamma is discrete and would be learned, which is refused."""
        if self.discrete and (learned or scale_posterior == "lognormal"):
            with pytest.raises(ValueError, match=r"prior of 'weight_gamma' has no density"):
                vbd.VBDGuide(model, scale_posterior=scale_posterior)
            return None
        return vbd.VBDGuide(model, scale_posterior=scale_posterior)

    def moderate(self):
        """Hyperparameters in the middle of their ranges."""
        return {**self.defaults, **{name: math.sqrt(low * high) for name, (low, high) in self.ranges.items()}}

    @staticmethod
    def value_of(site, guide):
        """Of a learned hyperparameter, or the median of an inferred one."""
        if site in (median := guide.median()):
            return median[site].item()
        return guide.model.network.learned()[site].item()

    @staticmethod
    def fit(model, guide):
        x = torch.randn(20, 3)
        batches = [(x, x[:, :2] + 0.1 * torch.randn(20, 2))]
        run = vbd.fit(model, guide, batches, epochs=3, progress=False)
        assert all(math.isfinite(record["loss"]) for record in run.history)

    @pytest.mark.parametrize("scale_posterior", ["delta", "lognormal", "exact"])
    def test_many_draws_at_once(self, scale_posterior):
        """Vectorised particles and parallel draws, with shared gammas and a global scale that is inferred."""
        prior = self.make(**self.moderate(), per="output", global_scale=dist.HalfNormal(1.0))
        model = vbd.Regressor(nn.Linear(3, 2), prior, num_data=20)
        if (guide := self.guide(model, scale_posterior)) is None:
            return
        x, y = torch.randn(20, 3), torch.randn(20, 2)
        elbo = vbd.VBD_ELBO(num_particles=5, vectorize_particles=True)
        elbo.differentiable_loss(model, guide, x, y).backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in guide.parameters())
        draws = pyro.infer.Predictive(model, guide=guide, num_samples=7, parallel=True)(x)
        assert draws["y"].shape == (7, 20, 2)
        prior_draws = pyro.infer.Predictive(model, num_samples=7, parallel=True, return_sites=["weight_gamma", "y"])(x)
        assert prior_draws["weight_gamma"].reshape(-1, 2).shape == (7, 2)
        assert len(prior_draws["weight_gamma"].unique()) > 1
        assert prior_draws["y"].shape == (7, 20, 2)

    @pytest.mark.parametrize("how", ["state_dict", "deepcopy", "pickle", "checkpoint"])
    def test_copies_of_a_guide_with_exact_scales(self, how, tmp_path):
        network = vbd.lift(nn.Linear(3, 2), self.make(**self.defaults, per="input"))
        guide = vbd.VBDGuide(network, scale_posterior="exact")
        for parameter in guide.parameters():
            parameter.data.add_(0.1 * torch.rand_like(parameter))
        if how == "deepcopy":
            other = copy.deepcopy(guide)
        elif how == "pickle":
            other = pickle.loads(pickle.dumps(guide))
        else:
            other, state = vbd.VBDGuide(network, scale_posterior="exact"), guide.state_dict()
            if how == "checkpoint":
                vbd.save_checkpoint(tmp_path / "state", state)
                state = vbd.load_checkpoint(tmp_path / "state")
            other.load_state_dict(state)
        for ours, theirs in zip(guide.quantiles([0.1, 0.9]).values(), other.quantiles([0.1, 0.9]).values(), strict=True):
            assert torch.equal(ours, theirs)

    # --- what is refused -------------------------------------------------------------------------------------------------

    def test_bad_hyperparameters_are_refused_by_name(self):
        for name in (*self.ranges, *self.numbers):
            wrong = [*BAD_NUMBERS, *(BAD_DISTRIBUTIONS if name in self.ranges else [dist.Gamma(1.0, 1.0), Learned(1.0)])]
            for value in wrong:
                if value is None and name == "floor":
                    continue
                with pytest.raises(ValueError, match=self.make.__name__) as error:
                    self.make(**{**self.moderate(), **self.beside, name: value})
                said = str(error.value)
                assert f"{name}=" in said
                assert (str(value) if isinstance(value, dist.Distribution) else repr(value).strip("'")) in said

    def test_bad_sharing_and_global_scales_are_refused_by_name(self):
        with pytest.raises(ValueError, match=r"per='column' is unknown: use one of weight, output, filter, input"):
            self.make(**self.defaults, per="column")
        for value in (-1.0, 0.0, math.nan, math.inf, True, "1", dist.Normal(0.0, 1.0), Learned(0.0)):
            with pytest.raises(ValueError, match=rf"{self.make.__name__}\(global_scale="):
                self.make(**self.defaults, global_scale=value)

    def test_repr_makes_the_prior_again(self):
        prior = self.make(**self.defaults, per="input", global_scale=0.5)
        assert repr(eval(repr(prior), {self.make.__name__: self.make})) == repr(prior)
        assert "per='input'" in repr(prior)
        assert "global_scale=0.5" in repr(prior)

    def test_statements(self, device):
        init = torch.randn(4, 3, dtype=torch.float64)
        trace = poutine.trace(self.make(**self.defaults, per="input").sample).get_trace("net.weight", init)
        assert trace.stochastic_nodes == ["net.weight_gamma", "net.weight"]
        gamma, weight = (trace.nodes[site] for site in trace.stochastic_nodes)
        assert gamma["fn"].event_shape == (1, 3)
        assert weight["fn"].event_shape == (4, 3)
        assert gamma["value"].dtype == weight["value"].dtype == torch.float64
        assert gamma["value"].device.type == weight["value"].device.type == device.type
        assert gamma["fn"].log_prob(gamma["value"]).isfinite()
        prior = self.make(**self.defaults)
        own = {**prior.arguments()}
        expected = self.variance(as_numpy(gamma["value"]), **{k: v for k, v in own.items() if isinstance(v, float)})
        np.testing.assert_allclose(as_numpy(base_distribution(weight["fn"]).variance), np.broadcast_to(expected, (4, 3)))
        assert weight["infer"]["init"] is init
