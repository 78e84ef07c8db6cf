"""The truth kit for priors: right ones pass, and each kind of wrong one is caught by the check that is there for it."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Normal, kl_divergence, register_kl

from pyro_vbd.distributions import positive
from pyro_vbd.posterior.exact_scale import ExactScale
from pyro_vbd.posterior.mean_field import AdditiveNormal
from pyro_vbd.priors import (
    Gaussian,
    HalfNormal,
    HierarchicalPrior,
    Laplace,
    Learned,
    LogUniform,
    Prior,
    ScaleMixture,
    evidence,
    optimum,
    register_evidence,
    register_optimum,
)
from pyro_vbd.testing import prior_checks
from pyro_vbd.testing.prior_checks import PRIOR_CHECKS, check_prior

DRAWS = 50_000
NAMES = ["density", "optimum", "kl", "exact", "gradients", "extremes", "sharing", "dtypes"]


pytestmark = pytest.mark.usefixtures("registries")


def only(check, prior):
    """The one check, as check_prior runs it."""
    torch.manual_seed(0)
    return PRIOR_CHECKS[check](prior, DRAWS)


def failing(prior):
    """The checks that a prior fails."""
    found = {}
    for name in NAMES:
        try:
            only(name, prior)
        except AssertionError as error:
            found[name] = str(error)
    assert all(type(prior).__name__ in said for said in found.values())
    return set(found)


class Variance(HierarchicalPrior):
    """A right prior: gamma ~ InverseGamma(3/2, 3/200) as the variance, under a distribution type of its own."""

    on = "variance"

    def __init__(self, kind=None, per="weight"):
        super().__init__({}, per)
        self.kind = kind or Plain

    def hyperprior(self, like):
        return self.kind(like.new_tensor(1.5), like.new_tensor(0.015), validate_args=False)


class Plain(dist.InverseGamma):
    pass


def best(hyperprior, sum_of_squares, count):
    return (sum_of_squares + 2 * hyperprior.rate) / (count + 2 * hyperprior.concentration + 2)


# --- right ones ----------------------------------------------------------------------------------------------------------


def test_a_prior_of_ones_own_passes(device):
    register_optimum(Plain, "variance")(best)
    prior = Variance()
    before = vars(prior).copy()
    assert check_prior(prior, device=device, num_samples=DRAWS) == dict.fromkeys(NAMES, "passed")
    assert vars(prior) == before


@pytest.mark.parametrize(
    ("hyperprior", "on"),
    [(dist.HalfCauchy(0.5), "scale"), (dist.Weibull(1.0, 2.0), "precision"), (dist.Beta(2.0, 3.0), "variance")],
    ids=["HalfCauchy", "Weibull", "Beta"],
)
def test_a_hyperprior_that_validates_its_values_is_no_fault(hyperprior, on):
    """As all do by default: those that people write, and those of a mixture of scales."""
    assert only("density", ScaleMixture(hyperprior, on)) is None
    assert hyperprior._validate_args


def test_the_names_and_the_order_of_the_checks():
    assert list(PRIOR_CHECKS) == NAMES
    for name in NAMES:
        assert f"``{name}``" in check_prior.__doc__


def test_the_random_state_is_left_as_it_was_and_the_seed_counts(monkeypatch):
    monkeypatch.setattr(prior_checks, "PRIOR_CHECKS", {"kl": PRIOR_CHECKS["kl"]})
    seen, before = [], torch.get_rng_state()

    class Seen(HalfNormal):
        def sample(self, name, init):
            seen.append(init.clone())
            return super().sample(name, init)

    starts = []
    for seed in (3, 3, 4):
        check_prior(Seen(), num_samples=1000, seed=seed)
        starts.append(seen[0])
        seen.clear()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_what_does_not_apply_is_said():
    report = check_prior(Gaussian(0.5), num_samples=2000)
    assert report["density"] == report["exact"] == "there is no level above the weights"
    assert report["optimum"] == "no optimum is registered for its hyperprior"
    assert report["sharing"] == "it has no per"
    assert {report[name] for name in ("kl", "gradients", "extremes", "dtypes")} == {"passed"}
    assert "improper" in check_prior(LogUniform(), num_samples=2000)["kl"]


def test_a_learned_hyperparameter_leaves_no_trace():
    report = check_prior(Laplace(Learned(0.5)), num_samples=2000)
    assert "use 'lognormal'" in report.pop("exact")
    assert report.pop("optimum") == "no optimum is registered for its hyperprior"
    assert set(report.values()) == {"passed"}
    assert not pyro.get_param_store()


def test_a_prior_without_a_registered_optimum_passes():
    class Unknown(Plain):
        pass

    optimum._OPTIMA.clear()
    report = check_prior(Variance(Unknown), num_samples=DRAWS)
    assert report["optimum"] == "no optimum is registered for its hyperprior"
    assert report["exact"] == report["density"] == "passed"


# --- wrong ones ----------------------------------------------------------------------------------------------------------

WRONG_OPTIMA = {
    "n + 1 instead of n + 2": lambda h, s, n: (s + 2 * h.rate) / (n + 2 * h.concentration + 1),
    "of the scale's density": lambda h, s, n: (s + 2 * h.rate) / (n + 2 * h.concentration),
    "the mean, not the sum": lambda h, s, n: (s / n + 2 * h.rate) / (n + 2 * h.concentration + 2),
    "half the rate": lambda h, s, n: (s + h.rate) / (n + 2 * h.concentration + 2),
    "without the rate": lambda h, s, n: s / (n + 2 * h.concentration + 2),
    "of a single weight": lambda h, s, n: (s + 2 * h.rate) / (2 * h.concentration + 3),
    "outside the support": lambda h, s, n: -best(h, s, n),
    "NaN": lambda h, s, n: math.nan * s,
}


@pytest.mark.parametrize("name", WRONG_OPTIMA)
def test_a_wrong_optimum_is_caught(name):
    register_optimum(Plain, "variance")(WRONG_OPTIMA[name])
    caught = failing(Variance())
    # with one weight in each group the mean is the sum, and every count is 1
    assert ("optimum" in caught) == (name not in ("the mean, not the sum", "of a single weight"))
    assert "sharing" in caught


def test_the_error_of_a_wrong_optimum_says_where():
    register_optimum(Plain, "variance")(WRONG_OPTIMA["n + 1 instead of n + 2"])
    with pytest.raises(
        AssertionError, match=r"Variance\(\): the registered optimum [\d.e-]+ of w_gamma has J = .* is lower"
    ):
        check_prior(Variance(), num_samples=1000)
    register_optimum(Plain, "variance")(WRONG_OPTIMA["of a single weight"])
    with pytest.raises(AssertionError, match=r"per='output': Variance"):
        check_prior(Variance(), num_samples=1000)


def right_evidence(h, s, n):
    return evidence.conjugate_evidence(h.concentration, h.rate, s, n)


WRONG_EVIDENCE = {
    "Z too large by a factor": lambda z, p: (z + 0.01, p),
    "Z too small by a factor": lambda z, p: (z - 0.01, p),
    "E[1/v] off": lambda z, p: (z, 1.001 * p),
    "1/E[v] for E[1/v]": lambda z, p: (z, 0.8 * p),
    "the constant left out": lambda z, p: (z - z.mean(), p),
}


@pytest.mark.parametrize("name", WRONG_EVIDENCE)
def test_a_wrong_evidence_is_caught(name):
    register_optimum(Plain, "variance")(best)
    register_evidence(Plain, "variance")(lambda h, s, n: WRONG_EVIDENCE[name](*right_evidence(h, s, n)))
    with pytest.raises(AssertionError, match=r"Variance\(\): the registered .* of w_gamma is [\d.e-]+ off its integral"):
        only("exact", Variance())


class Coin(positive.TwoPoint):
    pass


class TwoVariances(HierarchicalPrior):
    on = "variance"

    def hyperprior(self, like):
        return Coin(like.new_tensor(1e-4), like.new_tensor(1.0), like.new_tensor(0.3), validate_args=False)


@pytest.mark.parametrize("error", [0.0, 0.5])
def test_the_evidence_of_a_discrete_gamma_is_compared_with_a_sum(error):
    def sums(hyperprior, total, n):
        log_z, precision = ExactScale(hyperprior, torch.clone, torch.clone, total, n).evidence()
        return log_z + error, precision

    register_evidence(Coin, "variance")(sums)
    if not error:
        assert only("exact", TwoVariances()) is None
        return
    with pytest.raises(AssertionError, match=r"the registered log Z of w_gamma is 0\.\d+ off its integral"):
        only("exact", TwoVariances())


class Unnormalised(Plain):
    def log_prob(self, value):
        return super().log_prob(value) + 0.01


class Twice(Plain):
    def log_prob(self, value):
        return super().log_prob(value) + math.log(2.0)


def test_a_bound_above_what_a_delta_can_reach_is_caught():
    register_evidence(Twice, "variance")(lambda h, s, n: (math.nan * s, math.nan * s))  # by quadrature
    with pytest.raises(AssertionError, match=r"the bound of w_gamma is 0\.\d+ too high"):
        only("exact", Variance(Twice))


class OfTheScale(Plain):
    """Its density forgets the Jacobian: that of gamma's root."""

    def log_prob(self, value):
        return super().log_prob(value) + 0.5 * value.log()


class IgnoresTheRate(Plain):
    def sample(self, sample_shape=torch.Size()):
        return super().sample(sample_shape) / self.rate


class TooNarrow(Plain):
    def sample(self, sample_shape=torch.Size()):
        x = super().sample(sample_shape).log()
        centre = self.rate.log() - torch.digamma(self.concentration)  # E[log gamma]: the first moment is right
        return (centre + 0.9 * (x - centre)).exp()


@pytest.mark.parametrize("kind", [Unnormalised, OfTheScale, IgnoresTheRate, TooNarrow], ids=lambda kind: kind.__name__)
def test_a_wrong_density_or_sampler_is_caught(kind):
    register_optimum(kind, "variance")(best)
    with pytest.raises(AssertionError, match=r"w_gamma"):
        only("density", Variance(kind))


class OtherNormal(dist.Normal):
    """Its own entry for the KL from a Gaussian is off by a factor."""


@register_kl(AdditiveNormal, OtherNormal)
def _too_small(q, p):
    return 0.99 * kl_divergence(Normal(q.loc, q.scale), Normal(p.loc, p.scale))


class WrongKl(Prior):
    def sample(self, name, init):
        weight = OtherNormal(torch.zeros_like(init), torch.full_like(init, 0.5))
        return pyro.sample(name, weight.to_event(init.dim()), infer={"init": init})

    def __repr__(self):
        return "WrongKl()"


@pytest.mark.filterwarnings("ignore:the latents")  # that the guide finds it to be no scale
def test_a_gamma_that_may_be_negative_is_caught():
    class Gaussian(HierarchicalPrior):
        on = "scale"

        def hyperprior(self, like):
            return dist.Normal(like.new_tensor(1.0), like.new_tensor(0.1))

    with pytest.raises(AssertionError, match=r"support of w_gamma is Real\(\), and a scale needs one without negative"):
        only("density", Gaussian())


def test_a_wrong_kl_is_caught():
    assert failing(WrongKl()) == {"kl"}


@pytest.mark.parametrize(
    ("density", "said"), [(dist.Laplace(0.0, 0.5), None), (dist.StudentT(3.0), "the KL is estimated from draws")]
)
def test_a_kl_is_checked_wherever_it_has_a_closed_form(density, said):
    """torch has one from a Gaussian to a Laplace density."""

    class NotGaussian(Prior):
        def sample(self, name, init):
            return pyro.sample(name, density.expand(init.shape).to_event(init.dim()), infer={"init": init})

    assert only("kl", NotGaussian()) == said


class DetachedNormal(dist.Normal):
    """A KL whose gradient is lost on the way."""


@register_kl(AdditiveNormal, DetachedNormal)
def _detached(q, p):
    return kl_divergence(Normal(q.loc, q.scale.detach()), Normal(p.loc, p.scale)) + 0.0 * q.scale


class LostGradient(WrongKl):
    def sample(self, name, init):
        weight = DetachedNormal(torch.zeros_like(init), torch.full_like(init, 0.5))
        return pyro.sample(name, weight.to_event(init.dim()), infer={"init": init})

    def __repr__(self):
        return "LostGradient()"


def test_a_wrong_gradient_is_caught():
    assert failing(LostGradient()) == {"gradients"}


class Overflows(Plain):
    pass


def test_an_optimum_that_is_not_finite_at_extremes_is_caught():
    """S squared overflows in single precision."""
    register_optimum(Overflows, "variance")(lambda h, s, n: best(h, (s.square() * 1e24).sqrt() * 1e-12, n))
    assert "extremes" in failing(Variance(Overflows))


class WithoutAFloor(HierarchicalPrior):
    """Gamma(1/2, 1/2) for the variance, with gamma at S exactly where S is 0."""

    on = "variance"

    def hyperprior(self, like):
        return Rough(like.new_tensor(0.5), like.new_tensor(0.5), validate_args=False)


class Rough(dist.Gamma):
    pass


def test_a_variance_of_zero_is_caught():
    register_optimum(Rough, "variance")(lambda h, s, n: torch.where(s < 1e-6, 0.0, s / (n + 1)))
    assert "extremes" in failing(WithoutAFloor())


class Coarse(Variance):
    """Another rate in single precision than in double."""

    def hyperprior(self, like):
        rate = 0.015 if like.dtype == torch.float64 else 0.02
        return Plain(like.new_tensor(1.5), like.new_tensor(rate), validate_args=False)


def test_a_prior_that_depends_on_the_dtype_is_caught():
    register_optimum(Plain, "variance")(best)
    assert failing(Coarse()) == {"dtypes"}


def test_a_uniform_hyperprior_with_its_ends_is_checked_inside_them():
    """The optimum is clipped into the support, where moves out of it count as infinite."""

    class Ends(HierarchicalPrior):
        on = "variance"

        def hyperprior(self, like):
            return positive.Reciprocal(like.new_tensor(0.01), like.new_tensor(0.02), validate_args=False)

    assert check_prior(Ends(), num_samples=DRAWS)["optimum"] == "passed"
