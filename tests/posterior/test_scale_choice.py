"""Which gamma gets which q, by the word for q(gamma) and what the model says of it."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.distributions import AffineTransform

import pyro_vbd as vbd
from pyro_vbd.posterior.hierarchy import find_hierarchy
from pyro_vbd.posterior.optimal_scale import DeltaAt, Exact
from pyro_vbd.posterior.scale_choice import SCALE_POSTERIORS, choose_rules, scale_rule_of
from pyro_vbd.priors import Slab, find_evidence, find_optimum
from pyro_vbd.prototype import latent_sites, run_with


def rules(model, scale_posterior):
    sites = latent_sites(run_with({}, model, (), {}))
    return choose_rules(scale_posterior, sites, find_hierarchy(model, (), {}))


def layered():
    """A scale of each weight, of each row and of all, and a weight of its own."""
    tau = pyro.sample("tau", dist.HalfCauchy(1.0))
    row = pyro.sample("row", dist.Gamma(2.0, 1.0).expand([4, 1]).to_event(2))
    lam = pyro.sample("lam", dist.HalfCauchy(torch.ones(4, 3)).to_event(2))
    pyro.sample("w", dist.Normal(0.0, tau * row.rsqrt() * lam).to_event(2))
    gamma = pyro.sample("gamma", dist.Weibull(torch.ones(5), 1.0).to_event(1))
    pyro.sample("v", dist.Normal(0.0, gamma.sqrt()).to_event(1))


def test_the_words():
    assert set(SCALE_POSTERIORS) == {"delta", "lognormal", "exact"}
    for word in ("", "Delta", "point", None):
        with pytest.raises(ValueError, match=r"scale_posterior=.*is unknown: use one of delta, lognormal, exact"):
            scale_rule_of(word)
        with pytest.raises(ValueError, match=r"scale_posterior=.*is unknown"):
            vbd.VBDGuide(layered, scale_posterior=word)


def test_delta_has_the_registered_optima_of_the_largest_factor():
    found = rules(layered, "delta")
    assert set(found) == {"lam"}  # tau and row are learned points beside it, and so is a Weibull variance
    assert found["lam"] == DeltaAt(find_optimum(dist.HalfCauchy, "scale"))


def test_exact_has_each_density_registered_or_not():
    found = rules(layered, "exact")
    assert set(found) == {"lam", "gamma"}
    assert found["lam"] == Exact(None)
    assert found["gamma"] == Exact(None)


def test_exact_takes_what_is_registered():
    def model():
        tau = pyro.sample("tau", dist.Gamma(torch.ones(3), 1.0).to_event(1))
        pyro.sample("w", dist.Normal(0.0, tau.rsqrt()).to_event(1))

    assert rules(model, "exact")["tau"] == Exact(find_evidence(dist.Gamma, "precision"))
    assert rules(model, "exact")["tau"].evidence is not None


def test_lognormal_has_none():
    assert rules(layered, "lognormal") == {}


@pytest.mark.parametrize("scale_posterior", ["delta", "exact"])
def test_a_link_has_an_optimum_of_its_own_and_no_closed_form(scale_posterior):
    slab = Slab(2.0)

    def model():
        lam = pyro.sample("lam", dist.HalfCauchy(torch.ones(3)).to_event(1), infer={"link": slab})
        pyro.sample("w", dist.Normal(0.0, slab(lam)).to_event(1))

    rule = rules(model, scale_posterior)["lam"]
    if scale_posterior == "delta":
        assert rule.optimum.keywords == {"link": slab}
        assert rule.optimum.func is not find_optimum(dist.HalfCauchy, "scale")
    else:
        assert rule == Exact(None)


def test_a_closed_form_is_not_that_of_what_a_link_makes_of_gamma(float64):
    """gamma ~ Exponential, and twice gamma is the variance: the evidence of an exponential variance is another."""
    twice = AffineTransform(0.0, 2.0)

    def model():
        gamma = pyro.sample("gamma", dist.Exponential(torch.ones(3)).to_event(1), infer={"link": twice})
        w = pyro.sample("w", dist.Normal(0.0, twice(gamma).sqrt()).to_event(1), infer={"init": torch.ones(3)})
        return w.sum()

    def plain():
        gamma = pyro.sample("gamma", dist.Exponential(torch.full((3,), 0.5)).to_event(1))
        w = pyro.sample("w", dist.Normal(0.0, gamma.sqrt()).to_event(1), infer={"init": torch.ones(3)})
        return w.sum()

    assert rules(model, "delta") == {}
    kls = []
    for statement, evidence in ((model, None), (plain, find_evidence(dist.Exponential, "variance"))):
        assert rules(statement, "exact")["gamma"] == Exact(evidence)
        guide = vbd.VBDGuide(statement, scale_posterior="exact")
        guide()
        kls.append(vbd.VBD_ELBO().terms(statement, guide).kl)
    torch.testing.assert_close(*kls, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_the_first_stated_goes_first_among_factors_of_one_size(names):
    def model():
        first, second = (pyro.sample(name, dist.HalfCauchy(torch.ones(3)).to_event(1)) for name in names)
        pyro.sample("w", dist.Normal(0.0, first * second).to_event(1))

    for word in ("delta", "exact"):
        assert set(rules(model, word)) == {names[0]}


def test_one_gamma_in_two_roles_has_no_optimum():
    def model():
        gamma = pyro.sample("gamma", dist.Gamma(torch.ones(3), 1.0).to_event(1))
        pyro.sample("w", dist.Normal(0.0, gamma.sqrt()).to_event(1))
        pyro.sample("v", dist.Normal(0.0, gamma.rsqrt()).to_event(1))

    assert rules(model, "delta") == {}
    with pytest.raises(
        ValueError, match=r"no scale of 'w' to stand on: \['gamma'\] also acts on \['v'\], there in another"
    ):
        rules(model, "exact")


def test_a_gamma_beside_one_that_has_its_posterior_already():
    """Two factors of w: the larger has its posterior, and so the other, all that v has, can have none."""

    def model():
        row = pyro.sample("row", dist.HalfCauchy(torch.ones(3)).to_event(1))
        tau = pyro.sample("tau", dist.HalfCauchy(1.0))
        pyro.sample("w", dist.Normal(0.0, row * tau).to_event(1))
        pyro.sample("v", dist.Normal(torch.zeros(2), tau).to_event(1))

    assert set(rules(model, "delta")) == {"row"}
    with pytest.raises(
        ValueError, match=r"no scale of 'v' to stand on: \['tau'\] also acts on \['w'\], .*: use 'lognormal'"
    ):
        rules(model, "exact")


@pytest.mark.parametrize("what", ["a latent", "a parameter"])
def test_exact_names_the_weight_whose_scale_varies(what):
    def model():
        if what == "a latent":
            rate = pyro.sample("rate", dist.Gamma(1.0, 1.0))
        else:
            rate = pyro.param("rate", torch.tensor(1.0), constraint=dist.constraints.positive)
        gamma = pyro.sample("gamma", dist.Exponential(rate.expand(3)).to_event(1))
        pyro.sample("w", dist.Normal(0.0, gamma.sqrt()).to_event(1))

    assert rules(model, "delta") == {}
    with pytest.raises(
        ValueError, match=r"'w'.*the prior of \['gamma'\] holds a latent or a parameter, .*: use 'lognormal'"
    ):
        rules(model, "exact")


def test_a_weight_of_fixed_scale_needs_no_gamma():
    def model():
        pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    for word in SCALE_POSTERIORS:
        assert rules(model, word) == {}


@pytest.mark.parametrize("scale_posterior", ["delta", "exact"])
def test_one_gamma_of_two_weights(scale_posterior, float64):
    """Its S and n are those of both, whatever q(gamma) is."""

    def model():
        gamma = pyro.sample("gamma", dist.InverseGamma(1.5, 0.3))
        a = pyro.sample("a", dist.Normal(0.0, gamma.sqrt()).expand([3]).to_event(1), infer={"init": torch.full((3,), 0.4)})
        b = pyro.sample("b", dist.Normal(0.0, 2.0 * gamma.sqrt()).expand([5]).to_event(1), infer={"init": torch.ones(5)})
        return a.sum() + b.sum()

    guide = vbd.VBDGuide(model, scale_posterior=scale_posterior)
    guide()
    total = 0.0
    for site, constant in (("a", 1.0), ("b", 2.0)):
        q = guide.posteriors[f"q/{site}"]
        total += ((q.loc.square() + q.log_var.exp()) / constant**2).sum().item()
    if scale_posterior == "delta":
        expected = (total + 2 * 0.3) / (8 + 2 * 1.5 + 2)
    else:
        expected = 1.0 / dist.Gamma(1.5 + 4, 0.3 + 0.5 * total).sample((100_000,)).median().item()
    assert abs(guide.median()["gamma"].item() / expected - 1) < (1e-6 if scale_posterior == "delta" else 0.01)
