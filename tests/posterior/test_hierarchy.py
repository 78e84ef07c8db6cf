"""Which latent stands behind which weight: found from what a model does, whatever its names and shapes."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_vbd.posterior.hierarchy import find_hierarchy
from pyro_vbd.priors import ImproperLogUniform

LABELS = [2, 0, 0, 1]


def uniform(*shape):
    return dist.Uniform(torch.tensor(0.0), 10.0).expand(shape).to_event(len(shape))


def scaled(scale, *shape):
    """The model gamma ~ Uniform, w ~ Normal(0, scale(gamma))."""

    def model():
        s = scale(pyro.sample("gamma", uniform(*shape)))
        pyro.sample("w", dist.Normal(torch.zeros(()), s).to_event(s.dim()))

    return model


def permuted(gamma):
    return gamma[torch.randperm(len(gamma), generator=torch.Generator(gamma.device).manual_seed(3))]


ON = {"variance": lambda g: g.sqrt(), "scale": lambda g: g, "precision": lambda g: g.rsqrt()}

INDEXED = {
    "each its own": ((3, 4), lambda g: g),
    "scalar": ((), lambda g: g),
    "scalar for all": ((), lambda g: g.expand(3, 4)),
    "one element": ((1,), lambda g: g),
    "one element in two dimensions": ((1, 1), lambda g: g.expand(3, 4)),
    "per row": ((3,), lambda g: g[:, None].expand(3, 4)),
    "per column": ((4,), lambda g: g[None].expand(3, 4)),
    "per filter": ((5, 1, 1, 1), lambda g: g.expand(5, 2, 3, 3)),
    "by labels": ((3,), lambda g: g[LABELS]),
    "by labels, in columns": ((3,), lambda g: g[LABELS].expand(5, 4)),
    "transposed": ((3, 4), lambda g: g.t()),
    "backwards": ((6,), lambda g: g.flip(0)),
    "some unused": ((6,), lambda g: g[1:4]),
    "4096 elements": ((4096,), permuted),
    "two digits": ((4097,), permuted),
    "two digits, of a matrix": ((70, 80), lambda g: g.t()),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("layout", INDEXED)
def test_factor_is_the_power_and_the_index_of_gamma(layout, on, dtype):
    """The factor gives the model's scale, and its sums over what shares a gamma are the gradient of that."""
    shape, arrange = INDEXED[layout]

    def scale(gamma):
        return ON[on](arrange(gamma)).to(dtype)

    hierarchy = find_hierarchy(scaled(scale, *shape), (), {})
    (weight,) = hierarchy.weights.values()
    assert hierarchy.gammas == hierarchy.fixed == {"gamma"}
    assert weight.site == "w"
    (factor,) = weight.factors
    assert factor.on == on
    gamma = (torch.rand(shape) + 0.5).requires_grad_()
    torch.testing.assert_close(factor.spread(gamma).expand(weight.shape).to(dtype), scale(gamma))

    values = torch.rand(weight.shape)
    (slope,) = torch.autograd.grad((values * scale(gamma).log()).sum(), gamma)
    torch.testing.assert_close(
        factor.total(values).reshape(shape), slope * gamma.detach() / factor.power, rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("on", ON)
@pytest.mark.parametrize("constant", [3.0, 1e-3, torch.linspace(0.1, 5.0, 12).reshape(3, 4)])
def test_constant_factor_is_found(constant, on):
    constant = torch.as_tensor(constant, device=torch.get_default_device())
    hierarchy = find_hierarchy(scaled(lambda g: constant * ON[on](g)[:, None].expand(3, 4), 3), (), {})
    weight = hierarchy.weights["w"]
    assert [factor.on for factor in weight.factors] == [on]
    torch.testing.assert_close(weight.constant.expand(3, 4), constant.expand(3, 4), rtol=1e-5, atol=0.0)


def test_plates_instead_of_event_dimensions():
    def model():
        with pyro.plate("outputs", 3, dim=-2):
            tau = pyro.sample("tau", dist.Uniform(torch.tensor(0.0), 10.0))
            with pyro.plate("inputs", 4, dim=-1):
                pyro.sample("w", dist.Normal(torch.zeros(()), tau.sqrt()))

    weight = find_hierarchy(model, (), {}).weights["w"]
    (factor,) = weight.factors
    assert weight.shape == (3, 4)
    torch.testing.assert_close(factor.total(torch.ones(3, 4)), torch.full((3,), 4.0))


def test_one_gamma_for_two_weights():
    def model():
        gamma = pyro.sample("gamma", uniform(4))
        pyro.sample("incoming", dist.Normal(torch.zeros(()), gamma.sqrt()[:, None].expand(4, 2)).to_event(2))
        pyro.sample("outgoing", dist.Normal(torch.zeros(()), 2.0 * gamma.sqrt().expand(3, 4)).to_event(2))

    hierarchy = find_hierarchy(model, (), {})
    incoming, outgoing = hierarchy.weights.values()
    assert hierarchy.gammas == {"gamma"}
    torch.testing.assert_close(incoming.factor("gamma").total(torch.ones(4, 2)), torch.full((4,), 2.0))
    torch.testing.assert_close(outgoing.factor("gamma").total(torch.ones(3, 4)), torch.full((4,), 3.0))
    torch.testing.assert_close(outgoing.constant, torch.tensor(2.0))


@pytest.mark.parametrize(
    ("scale", "powers"),
    [
        (lambda tau, lam, c: c * tau * lam[:, None], {"tau": 1.0, "lam": 1.0}),
        (lambda tau, lam, c: c * (tau * lam[:, None]).sqrt(), {"tau": 0.5, "lam": 0.5}),
        (lambda tau, lam, c: c * tau / lam[:, None].sqrt(), {"tau": 1.0, "lam": -0.5}),
    ],
)
def test_product_of_latents(scale, powers):
    """Normal(0, c tau lam): each factor has its power, c and the other are told apart."""
    c = torch.linspace(0.5, 2.0, 4)

    def model():
        tau, lam = pyro.sample("tau", uniform()), pyro.sample("lam", uniform(3))
        pyro.sample("w", dist.Normal(torch.zeros(()), scale(tau, lam, c).expand(3, 4)).to_event(2))

    hierarchy = find_hierarchy(model, (), {})
    weight = hierarchy.weights["w"]
    assert {factor.site: factor.power for factor in weight.factors} == powers
    gammas = {"tau": torch.tensor(0.3), "lam": torch.tensor([0.5, 1.0, 3.0])}
    expected = scale(gammas["tau"], gammas["lam"], c).expand(3, 4)
    torch.testing.assert_close(weight.scale_without(None, gammas).expand(3, 4), expected)
    without = weight.scale_without("tau", gammas) * gammas["tau"] ** powers["tau"]
    torch.testing.assert_close(without.expand(3, 4), expected)


def test_chain_of_shared_factors():
    """w1 has a and b, w2 has b and c: three latents of which none can be told from its neighbour alone."""

    def model():
        a, b, c = (pyro.sample(name, uniform(3)) for name in "abc")
        pyro.sample("w1", dist.Normal(torch.zeros(()), a * b).to_event(1))
        pyro.sample("w2", dist.Normal(torch.zeros(()), b * c.flip(0).sqrt()).to_event(1))

    weights = find_hierarchy(model, (), {}).weights
    assert {(f.site, f.power) for f in weights["w1"].factors} == {("a", 1.0), ("b", 1.0)}
    assert {(f.site, f.power) for f in weights["w2"].factors} == {("b", 1.0), ("c", 0.5)}
    torch.testing.assert_close(weights["w2"].factor("c").total(torch.arange(3.0)), torch.tensor([2.0, 1.0, 0.0]))


UNFIT = {
    "a sum": lambda g: 1.0 + g,
    "a slab": lambda g: (g / (1.0 + g)).sqrt(),
    "another power": lambda g: g.square(),
    "a mean of several": lambda g: g.mean().expand(8),
    "a product of two elements": lambda g: g * g.flip(0),
    "a part alone": lambda g: torch.cat([g[:2], torch.ones(1)]),
    "an exponential": lambda g: g.exp(),
    "an order": lambda g: g.sort().values,
    "a small part of another": lambda g: g * (1.0 + 0.02 * (g - g.flip(0)) / (g + g.flip(0))),
    "beside a ratio": lambda g: g * g[-1] / g[0],
}


@pytest.mark.parametrize("form", UNFIT)
def test_scale_of_another_form_does_not_fit(form):
    hierarchy = find_hierarchy(scaled(UNFIT[form], 8), (), {})
    assert hierarchy.unfit == {"gamma"}
    assert not hierarchy.gammas
    assert not hierarchy.fixed
    assert not hierarchy.weights["w"].factors


@pytest.mark.parametrize("other_use", ["likelihood", "mean", "factor"])
def test_gamma_that_acts_elsewhere_is_no_gamma(other_use):
    def model():
        gamma = pyro.sample("gamma", uniform(3))
        w = pyro.sample("w", dist.Normal(torch.zeros(()), gamma.sqrt()).to_event(1))
        if other_use == "likelihood":
            pyro.sample("y", dist.Normal(w.sum(), gamma.sum()), obs=torch.zeros(()))
        elif other_use == "mean":
            pyro.sample("z", dist.Normal(gamma.sum(), 1.0))
        else:
            pyro.factor("penalty", -gamma.sum())

    hierarchy = find_hierarchy(model, (), {})
    assert (hierarchy.gammas, hierarchy.unfit) == (set(), {"gamma"})


def test_a_record_of_gamma_is_no_use_of_it():
    def model():
        gamma = pyro.sample("gamma", uniform(3))
        pyro.deterministic("deviation", gamma.sqrt())
        pyro.sample("w", dist.Normal(torch.zeros(()), gamma.sqrt()).to_event(1))

    assert find_hierarchy(model, (), {}).fixed == {"gamma"}


def test_mean_that_moves_with_gamma_does_not_fit():
    """The mean is 0 at the first look, and shows no gradient."""

    def model():
        gamma = pyro.sample("gamma", dist.Uniform(torch.tensor(4.0), 6.0))
        pyro.sample("w", dist.Normal(torch.where(gamma < 3.5, 1.0, 0.0), gamma))

    assert find_hierarchy(model, (), {}).unfit == {"gamma"}


def test_factor_that_fits_one_weight_alone_takes_its_neighbours_along():
    """h is no factor of v; then w, which g and h stand behind, has none either, and u keeps its own."""

    def model():
        g, h, k = (pyro.sample(name, uniform()) for name in "ghk")
        pyro.sample("u", dist.Normal(torch.zeros(()), k))
        pyro.sample("w", dist.Normal(torch.zeros(()), g * h))
        pyro.sample("v", dist.Normal(torch.zeros(()), 1.0 + h))

    hierarchy = find_hierarchy(model, (), {})
    assert (hierarchy.gammas, hierarchy.unfit) == ({"k"}, {"g", "h"})
    assert [len(weight.factors) for weight in hierarchy.weights.values()] == [1, 0, 0]


def test_a_scale_that_may_be_negative_is_no_gamma():
    def model():
        gamma = pyro.sample("gamma", dist.Normal(torch.full((3,), 5.0), 0.1).to_event(1))
        pyro.sample("w", dist.Normal(torch.zeros(()), gamma).to_event(1))

    hierarchy = find_hierarchy(model, (), {})
    assert (hierarchy.gammas, hierarchy.unfit) == (set(), {"gamma"})


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_it_is_found_where_no_gradient_is(mode):
    with mode():
        assert find_hierarchy(scaled(ON["variance"], 3), (), {}).fixed == {"gamma"}


def test_a_latent_that_hardly_acts_takes_its_neighbour_along():
    def model():
        g, h = pyro.sample("g", uniform(3)), pyro.sample("h", uniform(3))
        pyro.sample("w", dist.Normal(torch.zeros(()), g * (1.0 + 1e-6 * h)).to_event(1))

    hierarchy = find_hierarchy(model, (), {})
    assert (hierarchy.gammas, hierarchy.unfit) == (set(), {"g", "h"})


def test_scale_behind_a_detach_has_no_factor():
    hierarchy = find_hierarchy(scaled(lambda g: g.detach().sqrt(), 3), (), {})
    assert not hierarchy.gammas
    assert not hierarchy.weights["w"].factors


@pytest.mark.parametrize(
    "learned", ["pyro.param of the hyperprior", "nn.Parameter in the constant", "nn.Parameter of the hyperprior"]
)
def test_gamma_beside_a_parameter_is_not_fixed(learned):
    """Its optimum would move with a parameter that is being trained."""
    constant = nn.Parameter(torch.tensor(2.0))

    def model():
        high = torch.tensor(10.0)
        if learned.endswith("of the hyperprior"):
            high = pyro.param("high", torch.tensor(10.0)) if learned.startswith("pyro") else 5.0 * constant
        gamma = pyro.sample("gamma", dist.Uniform(torch.zeros(()), high).expand([3]).to_event(1))
        scale = constant * gamma.sqrt() if "constant" in learned else gamma.sqrt()
        pyro.sample("w", dist.Normal(torch.zeros(()), scale).to_event(1))

    hierarchy = find_hierarchy(model, (), {})
    assert (hierarchy.gammas, hierarchy.fixed) == ({"gamma"}, set())


def test_gamma_under_another_latent_is_not_fixed():
    def model():
        tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(1.0)))
        lam = pyro.sample("lam", dist.HalfCauchy(tau).expand([3]).to_event(1))
        pyro.sample("w", dist.Normal(torch.zeros(()), lam).to_event(1))

    hierarchy = find_hierarchy(model, (), {})
    assert (hierarchy.gammas, hierarchy.fixed) == ({"lam"}, set())


def test_names_say_nothing():
    """The noise is called gamma and the weight x; names that a module could not have are names like others."""

    def model():
        noise = pyro.sample("gamma", dist.HalfCauchy(torch.tensor(1.0)))
        values = pyro.sample("values", uniform(3))
        x = pyro.sample("x", dist.Normal(torch.zeros(()), values.sqrt()).to_event(1))
        scale = pyro.sample("a.b", uniform())
        pyro.sample("type", dist.Normal(torch.zeros(()), scale))
        pyro.sample("y", dist.Normal(x.sum(), noise), obs=torch.zeros(()))

    hierarchy = find_hierarchy(model, (), {})
    assert {name: [f.site for f in weight.factors] for name, weight in hierarchy.weights.items()} == {
        "x": ["values"],
        "type": ["a.b"],
    }
    assert hierarchy.gammas == {"values", "a.b"}
    assert not hierarchy.unfit


def test_weights_are_the_latents_around_zero_in_the_models_order():
    def model():
        pyro.sample("late", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("improper", ImproperLogUniform(torch.ones(3)).expand([3]).to_event(1))
        pyro.sample("intercept", dist.Normal(torch.full((2,), 3.0), 1.0).to_event(1))
        pyro.sample("mixed", dist.Normal(torch.tensor([0.0, 1.0]), 1.0).to_event(1))
        pyro.sample("early", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("heavy", dist.Laplace(torch.zeros(2), 1.0).to_event(1))

    hierarchy = find_hierarchy(model, (), {})
    assert list(hierarchy.weights) == ["late", "improper", "early"]
    assert not hierarchy.unfit
