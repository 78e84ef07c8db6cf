"""The posterior of any Pyro model: which latents are learned, where they start, and what can be asked of them."""

import copy
import io
import math
import pickle
from typing import ClassVar

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch
from pyro.infer import Predictive
from torch import nn
from torch.distributions import biject_to, constraints

import pyro_vbd as vbd
from pyro_vbd.distributions import TwoPoint
from pyro_vbd.priors import GaussianUniform, optimum, register_optimum

ODD_NAMES = ["type", "forward", "a.b", "a/b", "a~b", "a~1b", "0", "q/w"]
X = torch.linspace(-2.0, 2.0, 24, device="cpu").reshape(8, 3)
Y = torch.tensor([0.3, -1.0, 2.0, 0.5, 1.0, -0.2, 0.0, 1.5], device="cpu")


@pytest.fixture
def registry(monkeypatch):
    """A copy of the registry of optima, of the uniform hyperprior on the variance alone, thrown away after the test."""
    entry = dist.Uniform, "variance", None
    monkeypatch.setattr(optimum, "_OPTIMA", {entry: optimum._OPTIMA[entry]})


def data(device, dtype=None):
    return X.to(device, dtype), Y.to(device, dtype)


def regression(x, y=None):
    """gamma ~ U, w ~ N(0, gamma), an intercept ~ N(3, 1), a noise ~ HalfCauchy."""
    gamma = pyro.sample("gamma", dist.Uniform(x.new_zeros(()), 1e3).expand([3]).to_event(1))
    w = pyro.sample("w", dist.Normal(x.new_zeros(()), gamma.sqrt()).to_event(1))
    intercept = pyro.sample("intercept", dist.Normal(x.new_tensor(3.0), 1.0))
    noise = pyro.sample("noise", dist.HalfCauchy(x.new_tensor(1.0)))
    with pyro.plate("data", 8, subsample=x):
        return pyro.sample("y", dist.Normal(x @ w + intercept, noise), obs=y)


def learned(guide):
    """The sites that have parameters."""
    return {posterior.label.removeprefix(f"{guide.name}.") for posterior in guide.posteriors.values()}


def squares(guide, weight="w"):
    """theta^2 + sigma^2 of a weight, from the guide's parameters."""
    posterior = guide.posteriors[f"q/{weight}"].distribution()
    return (posterior.loc.square() + posterior.variance).detach()


def moved(guide):
    """The guide with its parameters away from where they start."""
    with torch.no_grad():
        for parameter in guide.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return guide


# --- gamma -------------------------------------------------------------------------------------------------------------

DEVIATION = {"variance": lambda g: g.sqrt(), "scale": lambda g: g, "precision": lambda g: g.rsqrt()}
MINIMISER = {"variance": lambda ms: ms, "scale": lambda ms: ms.sqrt(), "precision": lambda ms: 1.0 / ms}
LAYOUTS = {
    "each its own": ((3, 4), lambda g: g, lambda s: s),
    "per row": ((3,), lambda g: g[:, None].expand(3, 4), lambda s: s.mean(1)),
    "per column": ((4,), lambda g: g[None].expand(3, 4), lambda s: s.mean(0)),
    "per layer": ((), lambda g: g.expand(3, 4), lambda s: s.mean()),
    "transposed": ((4, 3), lambda g: g.t(), lambda s: s.t()),
    "by labels": (
        (2,),
        lambda g: g[[0, 1, 1]][:, None].expand(3, 4),
        lambda s: torch.stack([s[0].mean(), s[1:].mean()]),
    ),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("on", DEVIATION)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gamma_stands_at_its_optimum(layout, on, dtype, registry):
    """Under a flat hyperprior the variance is the mean of (theta^2 + sigma^2) / c^2 over what shares it."""
    shape, arrange, mean = LAYOUTS[layout]
    c = torch.linspace(0.5, 2.0, 12, dtype=dtype).reshape(3, 4)

    @register_optimum(dist.HalfNormal, on)
    def _(hyperprior, sum_of_squares, count):
        return MINIMISER[on](sum_of_squares / count)

    def model():
        hyperprior = dist.HalfNormal(torch.tensor(1e4, dtype=dtype)).expand(shape).to_event(len(shape))
        scale = c * DEVIATION[on](arrange(pyro.sample("gamma", hyperprior)))
        pyro.sample("w", dist.Normal(torch.zeros((), dtype=dtype), scale).to_event(2))

    guide = vbd.VBDGuide(model)
    guide()
    assert learned(moved(guide)) == {"w"}
    gamma = guide()["gamma"]
    torch.testing.assert_close(gamma, MINIMISER[on](mean(squares(guide) / c.square())), rtol=1e-5, atol=0.0)
    assert gamma.dtype == dtype
    assert not gamma.requires_grad


def test_gamma_of_two_weights_and_of_plates():
    """One gamma per hidden unit of two weights, stated in plates."""

    def model():
        with pyro.plate("hidden", 4, dim=-1):
            gamma = pyro.sample("gamma", dist.Uniform(torch.tensor(0.0), 1e3))
            with pyro.plate("inputs", 2, dim=-2):
                pyro.sample("incoming", dist.Normal(torch.zeros(()), gamma.sqrt()))
        pyro.sample("outgoing", dist.Normal(torch.zeros(()), 2.0 * gamma.sqrt()).to_event(1))

    guide = vbd.VBDGuide(model)
    guide()
    moved(guide)
    total = squares(guide, "incoming").sum(0) + squares(guide, "outgoing") / 4.0
    torch.testing.assert_close(guide()["gamma"], total / 3.0)
    assert learned(guide) == {"incoming", "outgoing"}


@pytest.mark.parametrize("form", ["sqrt of a product of variances", "product of scales"])
def test_of_several_factors_one_stands_at_its_optimum(form, registry):
    """The one with most elements, given the other, which is learned."""
    variance = form.startswith("sqrt")
    register_optimum(dist.Uniform, "scale")(lambda hyperprior, s, n: (s / n).sqrt().clamp(hyperprior.low, hyperprior.high))

    def model():
        tau = pyro.sample("tau", dist.Uniform(torch.tensor(0.0), 50.0))
        lam = pyro.sample("lam", dist.Uniform(torch.tensor(0.0), 1e3).expand([3]).to_event(1))
        scale = (tau * lam).sqrt() if variance else tau * lam
        pyro.sample("w", dist.Normal(torch.zeros(()), scale[:, None].expand(3, 4)).to_event(2))

    guide = vbd.VBDGuide(model)
    guide()
    assert learned(guide) == {"w", "tau"}
    values = moved(guide).median()
    mean = squares(guide).mean(1)
    torch.testing.assert_close(values["lam"], mean / values["tau"] if variance else mean.sqrt() / values["tau"])


@pytest.mark.parametrize("on", DEVIATION)
def test_gamma_without_an_optimum_is_learned_and_starts_where_it_fits(on, registry):
    """At the mean square of the weight as it starts."""

    def model():
        gamma = pyro.sample("gamma", dist.InverseGamma(torch.tensor(2.0), 2.0).expand([3]).to_event(1))
        scale = DEVIATION[on](gamma)[:, None].expand(3, 4)
        pyro.sample("w", dist.Normal(torch.zeros(()), 3.0 * scale).to_event(2))

    guide = vbd.VBDGuide(model)
    guide()
    assert learned(guide) == {"w", "gamma"}
    torch.testing.assert_close(guide.median()["gamma"], MINIMISER[on](squares(guide).mean(1) / 9.0), rtol=1e-4, atol=0.0)
    assert guide()["gamma"].requires_grad


def test_learned_gamma_starts_inside_its_support(registry):
    def model():
        gamma = pyro.sample("gamma", dist.Pareto(torch.tensor(5.0), 2.0))
        pyro.sample("w", dist.Normal(torch.zeros(3), gamma.sqrt()).to_event(1), infer={"init": torch.full((3,), 0.1)})

    guide = vbd.VBDGuide(model)
    guide()
    assert guide.median()["gamma"] > 5.0


def unfit(g):
    return {"sum": 1.0 + g, "slab": (g / (1.0 + g)).sqrt(), "likelihood": g.sqrt()}


@pytest.mark.parametrize("form", ["sum", "slab", "likelihood"])
def test_latent_of_another_form_gets_a_learned_posterior_and_one_warning(form):
    def model():
        g = pyro.sample("g", dist.Uniform(torch.tensor(0.0), 10.0))
        w = pyro.sample("w", dist.Normal(torch.zeros(()), unfit(g)[form].expand(3)).to_event(1))
        noise = g if form == "likelihood" else 1.0
        pyro.sample("y", dist.Normal(w.sum(), noise), obs=torch.tensor(1.0))

    guide = vbd.VBDGuide(model)
    with pytest.warns(UserWarning, match=r"\['g'\] act on the scale of a weight") as caught:
        guide()
    assert len(caught) == 1
    assert learned(guide) == {"g", "w"}
    vbd.VBD_ELBO()(model, guide)().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in guide.parameters())


def test_latent_behind_a_detach_is_learned_without_a_warning():
    """The user has cut what its optimum would follow."""

    def model():
        g = pyro.sample("g", dist.Uniform(torch.tensor(0.0), 10.0).expand([3]).to_event(1))
        pyro.sample("w", dist.Normal(torch.zeros(()), g.detach().sqrt()).to_event(1))

    guide = vbd.VBDGuide(model)
    guide()
    assert learned(guide) == {"g", "w"}


def test_hyperprior_under_another_latent_is_learned():
    """lam ~ HalfCauchy(tau): its optimum would move with tau, which learns from it."""

    def model():
        tau = pyro.sample("tau", dist.HalfCauchy(torch.tensor(1.0)))
        lam = pyro.sample("lam", dist.HalfCauchy(tau).expand([3]).to_event(1))
        w = pyro.sample("w", dist.Normal(torch.zeros(()), lam).to_event(1))
        pyro.sample("y", dist.Normal(w.sum(), 1.0), obs=torch.tensor(1.0))

    guide = vbd.VBDGuide(model)
    guide()
    assert learned(guide) == {"tau", "lam", "w"}
    vbd.VBD_ELBO()(model, guide)().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in guide.parameters())


@pytest.mark.parametrize("kind", ["pyro.param", "nn.Parameter"])
def test_gamma_of_a_learned_hyperprior_is_learned_and_so_is_the_hyperprior(kind):
    high = nn.Parameter(torch.tensor(10.0))

    def model():
        top = pyro.param("high", torch.tensor(10.0)) if kind == "pyro.param" else high
        gamma = pyro.sample("gamma", dist.Uniform(torch.zeros(()), top).expand([3]).to_event(1))
        w = pyro.sample("w", dist.Normal(torch.zeros(()), gamma.sqrt()).to_event(1))
        pyro.sample("y", dist.Normal(w.sum(), 1.0), obs=torch.tensor(1.0))

    guide = vbd.VBDGuide(model)
    guide()
    assert learned(guide) == {"gamma", "w"}
    vbd.VBD_ELBO(hyperprior_constant=True)(model, guide)().backward()
    grad = (pyro.param("high") if kind == "pyro.param" else high).grad
    torch.testing.assert_close(grad, torch.tensor(0.3))  # of 3 log(high - 0)


def test_names_are_of_no_consequence():
    """Names of a module's own attributes, names with dots and slashes, and a noise called gamma."""

    def model():
        noise = pyro.sample("gamma", dist.HalfCauchy(torch.tensor(1.0)))
        values = pyro.sample("values", dist.Uniform(torch.tensor(0.0), 10.0).expand([3]).to_event(1))
        x = pyro.sample("training", dist.Normal(torch.zeros(()), values.sqrt()).to_event(1))
        rest = [pyro.sample(name, dist.Normal(float(i), 1.0)) for i, name in enumerate(ODD_NAMES)]
        pyro.sample("y", dist.Normal(x.sum() + sum(rest), noise), obs=torch.tensor(1.0))

    guide = vbd.VBDGuide(model)
    guide()
    assert learned(guide) == {"gamma", "training", *ODD_NAMES}
    assert list(guide()) == ["gamma", "values", "training", *ODD_NAMES]
    assert len(list(guide.parameters())) == 2 * (2 + len(ODD_NAMES))
    assert math.isfinite(vbd.VBD_ELBO().loss(model, guide))


# --- parameters --------------------------------------------------------------------------------------------------------


def classifier():
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    return vbd.Classifier(net, GaussianUniform(), num_data=8)


def test_parameters_exist_at_once_with_example_inputs_or_a_model_of_the_library(device):
    x, y = data(device)
    names = [f"posteriors.q/{site}.{n}" for site in ("w", "intercept", "noise") for n in ("loc", "log_var")]
    assert [name for name, _ in vbd.VBDGuide(regression, x, y).named_parameters()] == names
    assert [name for name, _ in vbd.VBDGuide(regression, x=x, y=y).named_parameters()] == names
    assert len(list(vbd.VBDGuide(classifier()).parameters())) == 4


def test_an_attribute_named_prototype_is_a_models_own(device):
    """As networks that classify by the nearest prototype have one: it does not state latents."""

    class Nearest(nn.Module):
        def __init__(self):
            super().__init__()
            self.prototype = nn.Parameter(torch.ones(3, device=device))

        def forward(self, x):
            w = pyro.sample("w", dist.Normal(x.new_zeros(3), 1.0).to_event(1))
            with pyro.plate("data", len(x)):
                pyro.sample("y", dist.Normal(((x - self.prototype) * w).sum(-1), 1.0), obs=x[:, 0])

    model = Nearest()
    guide = vbd.VBDGuide(model)
    assert not list(guide.parameters())
    guide(torch.ones(2, 3, device=device))
    assert list(guide.median()) == ["w"]


@pytest.mark.parametrize("first", ["guide", "median", "quantiles", "sample", "log_alpha", "loss"])
def test_parameters_exist_after_the_first_call_otherwise(first, device):
    guide = vbd.VBDGuide(regression)
    assert not list(guide.parameters())
    calls = {
        "guide": guide,
        "median": guide.median,
        "quantiles": lambda *args: guide.quantiles([0.5], *args),
        "sample": lambda *args: guide.sample(None, *args),
        "log_alpha": guide.log_alpha,
        "loss": lambda *args: vbd.VBD_ELBO().loss(regression, guide, *args),
    }
    calls[first](*data(device))
    assert len(list(guide.parameters())) == 6
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in guide.parameters())
    assert {parameter.device.type for parameter in guide.parameters()} == {device.type}


def test_set_up_leaves_random_state_buffers_and_parameter_store_alone(device):
    """A network with BatchNorm, behind a function, under handlers."""
    net = vbd.lift(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)), GaussianUniform())

    def model(x, y=None):
        mean = net(x).squeeze(-1)
        with pyro.plate("data", 8, subsample=x):
            return pyro.sample("y", dist.Normal(mean, 1.0), obs=y)

    buffers = {name: value.clone() for name, value in net.named_buffers()}
    state = torch.get_rng_state(), torch.cuda.get_rng_state() if device.type == "cuda" else None
    with poutine.trace() as seen:
        vbd.VBDGuide(model, *data(device))
    assert torch.equal(torch.get_rng_state(), state[0])
    assert state[1] is None or torch.equal(torch.cuda.get_rng_state(), state[1])
    assert all(torch.equal(value, buffers[name]) for name, value in net.named_buffers())
    assert not seen.trace.nodes
    assert not list(pyro.get_param_store().keys())


def test_state_dict_round_trip(device):
    x, y = data(device)
    guide, fresh = moved(vbd.VBDGuide(regression, x, y)), vbd.VBDGuide(regression, x, y)
    assert not torch.equal(guide.median()["gamma"], fresh.median()["gamma"])
    fresh.load_state_dict(copy.deepcopy(guide.state_dict()))
    for site, value in guide.median().items():
        assert torch.equal(value, fresh.median()[site]), site
    called = vbd.VBDGuide(regression)
    called(x, y)
    called.load_state_dict(guide.state_dict())
    assert torch.equal(guide.median()["w"], called.median()["w"])


def test_state_dict_into_a_guide_without_parameters_is_refused(device):
    state = vbd.VBDGuide(regression, *data(device)).state_dict()
    with pytest.raises(RuntimeError, match="no parameters yet to load into: give VBDGuide example inputs"):
        vbd.VBDGuide(regression).load_state_dict(state)
    holder = nn.ModuleDict({"guide": vbd.VBDGuide(regression)})
    with pytest.raises(RuntimeError, match="no parameters yet"):
        holder.load_state_dict({f"guide.{key}": value for key, value in state.items()})


def saved(guide):
    buffer = io.BytesIO()
    torch.save(guide, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


COPIES = {"deepcopy": copy.deepcopy, "pickle": lambda guide: pickle.loads(pickle.dumps(guide)), "torch.save": saved}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("make", [lambda *args: vbd.VBDGuide(regression, *args), lambda *_: vbd.VBDGuide(classifier())])
def test_copy_has_parameters_of_its_own(how, make, device):
    guide = moved(make(*data(device)))
    copied = COPIES[how](guide)
    for site, value in guide.median().items():
        assert torch.equal(value, copied.median()[site]), site
    with torch.no_grad():
        next(copied.parameters()).add_(1.0)
    assert not torch.equal(next(guide.parameters()), next(copied.parameters()))


def test_deepcopy_belongs_to_the_same_model_or_to_the_models_copy(device):
    """As torch's averaged models and early stopping ask of it."""
    model = classifier()
    batch = data(device)[0], torch.tensor([0, 1] * 4)
    guide = vbd.VBDGuide(model)
    vbd.VBD_ELBO().loss(model, copy.deepcopy(guide), *batch)
    vbd.VBD_ELBO().loss(*copy.deepcopy((model, guide)), *batch)
    averaged = torch.optim.swa_utils.AveragedModel(guide)
    vbd.VBD_ELBO().loss(model, averaged.module, *batch)


def test_double_makes_everything_double(device):
    x, y = (value.double() for value in data(device))
    guide = vbd.VBDGuide(regression, *data(device)).double()
    assert {value.dtype for value in guide(x, y).values()} == {torch.float64}
    terms = vbd.VBD_ELBO().terms(regression, guide, x, y)
    assert terms.log_likelihood.dtype == terms.kl.dtype == torch.float64
    torch.testing.assert_close(guide.median()["gamma"], squares(guide), rtol=1e-14, atol=0.0)


def test_model_is_no_submodule():
    model = classifier()
    guide = vbd.VBDGuide(model)
    assert not {id(p) for p in model.parameters()} & {id(p) for p in guide.parameters()}
    assert guide.model is model


def test_parameter_names_are_the_guides_own(device):
    """By default unique in the process; as given otherwise."""
    guides = [vbd.VBDGuide(regression, *data(device)) for _ in range(2)]
    guides.append(vbd.VBDGuide(regression, *data(device), name="mine"))
    names = []
    for guide in guides:
        with poutine.trace(param_only=True) as seen:
            guide()
        names.append(set(seen.trace.nodes))
    assert len(names[0] | names[1] | names[2]) == 3 * 6
    assert names[2] == {f"mine.{site}.{n}" for site in ("w", "intercept", "noise") for n in ("loc", "log_var")}


# --- alpha and the start -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("alpha", "shape"), [("weight", (4, 3)), ("unit", (4, 1)), ("layer", (1, 1)), (0.25, ())])
def test_alpha_is_shared_as_asked(alpha, shape):
    guide = vbd.VBDGuide(classifier(), alpha=alpha)
    moved(guide)
    log_alpha = guide.log_alpha()
    assert set(log_alpha) == {"0.weight", "2.weight"}
    values = log_alpha["0.weight"]
    assert values.shape == (4, 3)
    assert len(values.unique(dim=0)) == (4 if alpha in ("weight", "unit") else 1)
    if alpha != "weight":
        assert all(torch.allclose(values, values.narrow(d, 0, 1)) for d, size in enumerate(shape or (1, 1)) if size == 1)
    if alpha == 0.25:
        torch.testing.assert_close(values, torch.full((4, 3), math.log(0.25)))
    assert len(list(guide.parameters())) == (2 if alpha == 0.25 else 4)
    posterior = guide.posteriors["q/0/weight"]
    variance = posterior.distribution().variance
    torch.testing.assert_close(variance, values.exp() * posterior.loc.square())


@pytest.mark.parametrize("alpha", ["neuron", 0.0, -1.0, math.inf, None])
def test_bad_alpha_is_refused_at_construction(alpha):
    with pytest.raises(ValueError, match="use 'weight', 'unit', 'layer', or a positive number"):
        vbd.VBDGuide(regression, alpha=alpha)


def test_means_start_at_the_networks_weights_or_at_init():
    model = classifier()
    median = vbd.VBDGuide(model).median()
    assert torch.equal(median["0.weight"], model.network.net[0].weight)
    start = torch.tensor([0.5, -1.0, 2.0])

    def by_hand():
        gamma = pyro.sample("gamma", dist.Uniform(torch.tensor(0.0), 1e3).expand([3]).to_event(1))
        pyro.sample("w", dist.Normal(torch.zeros(()), gamma.sqrt()).to_event(1), infer={"init": start})
        pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0), infer={"init": torch.tensor(7.0)})
        pyro.sample("shift", dist.Normal(torch.tensor(1.0), 1.0), infer={"init": torch.tensor(-2.0)})

    guide = vbd.VBDGuide(by_hand, init_log_var=-4.0, init_scale=0.3)
    median = guide.median() if list(guide.parameters()) else (guide(), guide.median())[1]
    torch.testing.assert_close(median["w"], start)
    torch.testing.assert_close(median["rate"], torch.tensor(7.0))
    torch.testing.assert_close(median["shift"], torch.tensor(-2.0))
    torch.testing.assert_close(guide.posteriors["q/w"].log_var, torch.full((3,), -4.0))
    torch.testing.assert_close(guide.posteriors["q/rate"].log_var, torch.tensor(2 * math.log(0.3)))
    torch.testing.assert_close(guide.posteriors["q/shift"].log_var, torch.tensor(2 * math.log(0.3)))
    with torch.no_grad():
        guide.posteriors["q/w"].loc.zero_()
    assert torch.equal(start, torch.tensor([0.5, -1.0, 2.0]))


def test_means_without_init_start_small_and_not_at_zero():
    def model():
        pyro.sample("w", dist.Normal(torch.zeros(300, 500), 10.0).to_event(2))

    guide = vbd.VBDGuide(model)
    guide()
    loc = guide.median()["w"]
    z = (loc.std() / math.sqrt(2 / 800) - 1) * math.sqrt(2 * loc.numel())  # Glorot's standard deviation
    assert abs(z) < 4
    assert (loc != 0).all()


def test_heavy_tails_start_at_the_median():
    """Also behind to_event: a mean of half-Cauchy draws may be anywhere."""

    def model():
        pyro.sample("a", dist.HalfCauchy(torch.ones(2000)).to_event(1))
        with pyro.plate("plate", 2000):
            pyro.sample("b", dist.HalfCauchy(torch.tensor(1.0)))

    guide = vbd.VBDGuide(model)
    guide()
    for site in "ab":
        log_start = guide.median()[site].log()
        # the sample median of 15 draws of log half-Cauchy, whose density at its median 0 is 1/pi
        z = log_start.mean() * math.sqrt(2000) / (math.pi / 2 / math.sqrt(15))
        assert abs(z) < 4
        assert log_start.max() < 4


def test_improper_prior_has_a_start():
    def model():
        slope = pyro.sample("slope", dist.ImproperUniform(constraints.real, (), (2,)).to_event(0))
        scale = pyro.sample("scale", dist.ImproperUniform(constraints.positive, (), ()))
        pyro.sample("y", dist.Normal(slope.sum(), scale), obs=torch.tensor(1.0))

    guide = vbd.VBDGuide(model)
    guide()
    assert learned(guide) == {"slope", "scale"}
    assert guide.median()["scale"] > 0
    assert math.isfinite(vbd.VBD_ELBO().loss(model, guide))


# --- summaries ---------------------------------------------------------------------------------------------------------


def test_median_and_quantiles_are_those_of_the_formulas(device):
    guide = moved(vbd.VBDGuide(regression, *data(device)))
    levels = [0.1, 0.5, 0.975]
    normal = torch.distributions.Normal(0.0, 1.0).icdf(torch.tensor(levels))
    found, median = guide.quantiles(levels), guide.median()
    w, intercept, noise = (guide.posteriors[f"q/{site}"] for site in ("w", "intercept", "noise"))
    expected = {
        "w": w.loc + (0.5 * w.log_var).exp() * normal[:, None],
        "intercept": intercept.loc + (0.5 * intercept.log_var).exp() * normal,
        "noise": (noise.loc + (0.5 * noise.log_var).exp() * normal).exp(),
        "gamma": squares(guide).expand(3, 3),
    }
    assert set(found) == set(median) == set(expected)
    for site, value in expected.items():
        torch.testing.assert_close(found[site], value.detach())
        torch.testing.assert_close(median[site], value[1].detach())
        assert not found[site].requires_grad
    torch.testing.assert_close(guide.quantiles(torch.tensor(levels))["w"], found["w"])


class Debt(dist.TorchDistribution):
    """A distribution below zero: its bijection from the real line falls."""

    arg_constraints: ClassVar = {}
    support = constraints.less_than(0.0)
    has_rsample = True

    def expand(self, batch_shape, _instance=None):
        return Debt(torch.Size(batch_shape), validate_args=False)

    def rsample(self, sample_shape=()):
        return -torch.empty(torch.Size(sample_shape) + self.batch_shape).exponential_()

    def log_prob(self, value):
        return value.expand(value.shape)


@pytest.mark.parametrize("event_dim", [0, 1])
def test_quantiles_rise_where_the_transform_falls(event_dim):
    def model():
        with pyro.plate_stack("plates", () if event_dim else (4,)):
            pyro.sample("debt", Debt().expand([4] if event_dim else []).to_event(event_dim))

    guide = vbd.VBDGuide(model)
    guide()
    low, high = guide.quantiles([0.1, 0.9])["debt"]
    assert (low < high).all()
    assert (high < 0).all()


def test_samples_are_of_the_posterior(device):
    guide = moved(vbd.VBDGuide(regression, *data(device)))
    draws = guide.sample(4000)
    assert {site: tuple(value.shape) for site, value in draws.items()} == {
        "gamma": (4000, 3),
        "w": (4000, 3),
        "intercept": (4000,),
        "noise": (4000,),
    }
    for site, unconstrained in {"w": draws["w"], "intercept": draws["intercept"], "noise": draws["noise"].log()}.items():
        q = guide.posteriors[f"q/{site}"]
        z = (unconstrained - q.loc) / (0.5 * q.log_var).exp()
        assert (z.mean(0).abs() * math.sqrt(4000) < 4).all(), site
        assert ((z.var(0) - 1).abs() * math.sqrt(4000 / 2) < 4).all(), site
    assert (draws["gamma"] == guide.median()["gamma"]).all()
    assert {site: value.shape for site, value in guide.sample().items()} == {s: v.shape[1:] for s, v in draws.items()}
    assert not any(value.requires_grad for value in draws.values())


def test_log_alpha_of_the_weights(device):
    guide = moved(vbd.VBDGuide(regression, *data(device)))
    posterior = guide.posteriors["q/w"]
    with torch.no_grad():
        posterior.loc[0] = 0.0
    found = guide.log_alpha()
    assert set(found) == {"w"}
    torch.testing.assert_close(found["w"][1:], (posterior.log_var - posterior.loc.square().log())[1:].detach())
    assert found["w"][0] == math.inf


def test_guide_states_the_models_sites(device):
    """In the model's order, each with its event dimensions and plates, and replayable by Pyro."""

    def model():
        with pyro.plate("rows", 3, dim=-2):
            gamma = pyro.sample("gamma", dist.Uniform(torch.tensor(0.0), 10.0))
            with pyro.plate("columns", 4, dim=-1):
                pyro.sample("w", dist.Normal(torch.zeros(()), gamma.sqrt()))
            rate = pyro.sample("rate", dist.Gamma(torch.tensor(2.0), 1.0))
        share = pyro.sample("share", dist.Dirichlet(torch.ones(2, 5)).to_event(1))
        pyro.sample("y", dist.Normal(rate.sum(), share.sum()), obs=torch.tensor(1.0))

    guide = vbd.VBDGuide(model)
    values = guide()
    trace = poutine.trace(guide).get_trace()
    replayed = poutine.trace(poutine.replay(model, trace=trace)).get_trace()
    sites = ["gamma", "w", "rate", "share"]
    assert list(values) == sites
    assert [name for name in trace.nodes if name in sites] == sites
    for name in sites:
        ours, theirs = trace.nodes[name], replayed.nodes[name]
        assert ours["value"].shape == theirs["value"].shape == theirs["fn"].shape()
        assert ours["fn"].batch_shape == theirs["fn"].batch_shape
        assert ours["fn"].event_shape == theirs["fn"].event_shape
        frames = [[(f.name, f.dim, f.size) for f in site["cond_indep_stack"]] for site in (ours, theirs)]
        assert frames[0] == frames[1]


def test_predictive_draws_through_the_guide(device):
    x, y = data(device)
    guide = vbd.VBDGuide(regression, x, y)
    draws = Predictive(regression, guide=guide, num_samples=5, return_sites=("w", "y"))(x)
    assert draws["y"].shape == (5, 8)
    assert len(draws["w"].reshape(5, 3).unique(dim=0)) == 5


# --- the posteriors of the other latents -------------------------------------------------------------------------------


def gamma_poisson():
    rate = pyro.sample("z", dist.Gamma(torch.tensor(2.0), 0.5))
    with pyro.plate("data", 4):
        pyro.sample("y", dist.Poisson(rate), obs=torch.tensor([3.0, 5.0, 1.0, 4.0]))


def beta_binomial():
    p = pyro.sample("z", dist.Beta(torch.tensor(2.0), 1.0))
    with pyro.plate("data", 2):
        pyro.sample("y", dist.Binomial(torch.tensor([2.0, 4.0]), p), obs=torch.tensor([1.0, 3.0]))


def half_cauchy_noise():
    noise = pyro.sample("z", dist.HalfCauchy(torch.tensor(1.0)))
    with pyro.plate("data", 4):
        pyro.sample("y", dist.Normal(0.0, noise), obs=torch.tensor([0.5, -1.0, 2.0, 0.3]))


def uniform_mean():
    mean = pyro.sample("z", dist.Uniform(torch.tensor(-1.0), 2.0))
    with pyro.plate("data", 2):
        pyro.sample("y", dist.Normal(mean, 0.7), obs=torch.tensor([0.5, 1.0]))


def heavy_tails_around_intercept():
    mean = pyro.sample("z", dist.Normal(torch.tensor(3.0), 1.0))
    with pyro.plate("data", 2):
        pyro.sample("y", dist.StudentT(4.0, mean, 1.0), obs=torch.tensor([0.5, 1.0]))


def dirichlet_categorical():
    p = pyro.sample("z", dist.Dirichlet(torch.tensor([1.0, 2.0, 0.5])))
    with pyro.plate("data", 6):
        pyro.sample("y", dist.Categorical(p), obs=torch.tensor([0, 1, 2, 2, 0, 2]))


def best_gaussian(model):
    """The best Gaussian on the unconstrained space of z (loc, log_var), and its bound, by Gauss-Hermite quadrature."""
    np = pytest.importorskip("numpy")
    fn = poutine.trace(model).get_trace().nodes["z"]["fn"]
    transform = biject_to(fn.support)
    loc = torch.zeros(transform.inverse_shape(fn.shape()), requires_grad=True)
    log_sd = torch.full_like(loc, -1.0, requires_grad=True)
    nodes, weights = (torch.as_tensor(v).to(loc) for v in np.polynomial.hermite_e.hermegauss(32))
    grid = torch.cartesian_prod(*[nodes] * loc.numel()).reshape(-1, *loc.shape)
    mass = torch.cartesian_prod(*[weights] * loc.numel()).reshape(len(grid), -1).prod(1)
    optimizer = torch.optim.LBFGS([loc, log_sd], max_iter=50, line_search_fn="strong_wolfe")

    def log_joint(z):
        with pyro.plate("grid", len(z), dim=-2), poutine.condition(data={"z": z.unsqueeze(1)}):
            trace = poutine.trace(model).get_trace()
        trace.compute_log_prob()
        return sum(trace.nodes[site]["log_prob"].sum(-1) for site in ("z", "y"))

    def loss():
        optimizer.zero_grad()
        unconstrained = loc + log_sd.exp() * grid
        z = transform(unconstrained)
        joint = log_joint(z) + transform.log_abs_det_jacobian(unconstrained, z)
        bound = (mass * joint).sum() / mass.sum() + (log_sd + 0.5 * math.log(2 * math.pi * math.e)).sum()
        (-bound).backward()
        return -bound

    optimizer.step(loss)
    return loc.detach(), 2.0 * log_sd.detach(), -loss().detach()


CONJUGATE = [
    gamma_poisson,
    beta_binomial,
    half_cauchy_noise,
    uniform_mean,
    heavy_tails_around_intercept,
    dirichlet_categorical,
]


@pytest.mark.parametrize("model", CONJUGATE)
def test_bound_is_stationary_at_the_best_gaussian(model, float64):
    """The optimum by quadrature is where the expected gradient is 0, and the bound there is the same: Jacobian included."""
    loc, log_var, bound = best_gaussian(model)
    guide = vbd.VBDGuide(model)
    guide()
    posterior = guide.posteriors["q/z"]
    with torch.no_grad():
        posterior.loc.copy_(loc)
        posterior.log_var.copy_(log_var)
    elbo = vbd.VBD_ELBO()
    draws = []
    for _ in range(250):
        loss = elbo.differentiable_loss(model, guide)
        draws.append(
            torch.cat([loss[None], *(g.flatten() for g in torch.autograd.grad(loss, guide.parameters()))]).detach()
        )
    draws = torch.stack(draws)
    expected = torch.zeros(draws.size(1))
    expected[0] = -bound
    z = (draws.mean(0) - expected) / (draws.std(0) / math.sqrt(len(draws)) + 1e-10)
    assert (z.abs() < 4).all(), z


def test_fitted_rate_has_the_exact_posterior_mean(float64):
    """Gamma-Poisson: the best log-normal has the mean of the exact posterior, (a + sum y) / (b + n), and 1/(a + sum y)
    as the variance of its logarithm. Without the Jacobian its mean would be (a + sum y - 1) / (b + n)."""
    guide = vbd.VBDGuide(gamma_poisson)
    guide()
    elbo = vbd.VBD_ELBO(num_particles=100, vectorize_particles=True, max_plate_nesting=1)
    svi = pyro.infer.SVI(gamma_poisson, guide, pyro.optim.Adam({"lr": 0.03}), elbo)
    tail = []
    for step in range(400):
        svi.step()
        if step >= 200:
            q = guide.posteriors["q/z"]
            tail.append(torch.stack([q.loc + 0.5 * q.log_var.exp(), q.log_var]).detach())
    log_mean, log_var = torch.stack(tail).mean(0)
    assert abs(log_mean.exp() - 15.0 / 4.5) < 0.03
    assert abs(log_var.exp() - 1.0 / 15.0) < 0.005


# --- a first run that fails, or in inference mode ---------------------------------------------------------------------


def test_a_guide_of_a_model_that_was_refused_has_nothing_of_it():
    """The second call says what the first did, and a mended model is taken."""
    scale = [TwoPoint(torch.tensor(0.1), torch.tensor(1.0), torch.tensor(0.5))]

    def model():
        gamma = pyro.sample("gamma", scale[0].expand([3]).to_event(1))
        pyro.sample("w", dist.Normal(0.0, gamma.sqrt()).to_event(1))

    guide = vbd.VBDGuide(model, scale_posterior="lognormal")
    for _ in range(2):
        with pytest.raises(ValueError, match="'gamma' has no density where it would start"):
            guide()
    assert not list(guide.parameters())
    scale[0] = dist.LogNormal(torch.tensor(0.0), 1.0)
    assert guide()["w"].shape == (3,)


@pytest.mark.parametrize("kind", ["by hand", "network"])
@pytest.mark.usefixtures("float64")
def test_a_first_run_in_inference_mode_finds_and_makes_the_same(kind):
    """Parameters can be trained afterwards, and the hierarchy, which gradients tell, is found."""

    def by_hand(x):
        gamma = pyro.sample("gamma", dist.Uniform(torch.zeros(3), 10.0).to_event(1))
        w = pyro.sample("w", dist.Normal(0.0, gamma.sqrt()).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal((x * w).sum(-1), 1.0), obs=torch.ones(len(x)))

    network = vbd.Classifier(nn.Linear(3, 2), vbd.priors.Horseshoe(), num_data=4)
    with torch.inference_mode():
        x = torch.randn(4, 3) + 1.0
        model, args = (by_hand, (x,)) if kind == "by hand" else (network, ())
        guide = vbd.VBDGuide(model, *args)
        assert set(guide.median()) == set(guide())
    assert list(guide.optima) == (["q/gamma"] if kind == "by hand" else ["q/weight_gamma"])
    batch = (x.clone(),) if kind == "by hand" else (x.clone(), torch.tensor([0, 1, 0, 1]))
    vbd.fit(model, guide, [batch], epochs=2, progress=False)


def test_a_trained_guide_serves_in_inference_mode():
    model = vbd.Classifier(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), vbd.priors.GaussianUniform(), 4)
    guide, x, y = vbd.VBDGuide(model), torch.randn(4, 3), torch.tensor([0, 1, 0, 1])
    for estimator in ("local", "weights", "flipout"):
        elbo = vbd.VBD_ELBO(estimator=estimator)
        pyro.set_rng_seed(1)
        expected = elbo.loss(model, guide, x, y)
        pyro.set_rng_seed(1)
        with torch.inference_mode():
            assert elbo.loss(model, guide, x, y) == pytest.approx(expected)
    with torch.inference_mode():
        assert vbd.predict(model, guide, x, num_samples=10).probs.shape == (4, 2)
        assert guide.sample(5)["0.weight"].shape == (5, 4, 3)
        assert vbd.masks(guide)["0.weight"].shape == (4, 3)


@pytest.mark.parametrize("scale_posterior", ["delta", "exact"])
@pytest.mark.parametrize("probability", [-0.1, 1.5, math.nan])
def test_a_probability_that_is_none_is_refused(probability, scale_posterior):
    """A delta would answer with its point, a bounded density with its end."""
    guide = vbd.VBDGuide(vbd.Regressor(nn.Linear(3, 1), GaussianUniform(), num_data=8), scale_posterior=scale_posterior)
    with pytest.raises(ValueError, match=f"probabilities=.*{probability}.* from 0 to 1"):
        guide.quantiles([0.5, probability])


def test_the_density_of_a_learned_scale_starts_as_wide_as_asked():
    model = vbd.Regressor(nn.Linear(3, 1), vbd.priors.Horseshoe(), num_data=8)
    guide = vbd.VBDGuide(model, scale_posterior="lognormal", init_scale=0.37)
    middle, above = guide.quantiles([0.5, 0.8413447])["weight_gamma"].log()  # one standard deviation above
    torch.testing.assert_close(above - middle, torch.full((1, 3), 0.37), rtol=1e-4, atol=0)


def test_latents_that_a_plate_states_one_by_one():
    def model():
        normal = dist.Normal(torch.zeros(2), 1.0).to_event(1)
        total = sum(pyro.sample(f"w{i}", normal) for i in pyro.plate("in turn", 3))
        pyro.sample("y", dist.Normal(total, 1.0).to_event(1), obs=torch.ones(2))

    guide = vbd.VBDGuide(model)
    assert {site: value.shape for site, value in guide().items()} == dict.fromkeys(("w0", "w1", "w2"), (2,))
    assert math.isfinite(vbd.VBD_ELBO().loss(model, guide))
