"""Hyperparameters that are numbers, learned, or have a distribution of their own."""

import math

import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import pytest
import torch

import pyro_vbd as vbd
from pyro_vbd.priors import HalfNormal, Laplace, Learned, StudentT
from pyro_vbd.priors.hyperparameter import check_hyperparameter, check_number, is_number, state_hyperparameter

GOOD = [1, 0.5, 1e-30, Learned(2.0), dist.Gamma(2.0, 1.0), dist.Uniform(0.1, 2.0), dist.HalfCauchy(1.0)]
BAD = [
    -1,
    0,
    math.nan,
    math.inf,
    True,
    "1",
    None,
    torch.tensor(1.0),
    Learned(0.0),
    Learned(True),
    Learned("1"),
    dist.Normal(1.0, 1.0),
    dist.Uniform(-1.0, 1.0),
    dist.Gamma(torch.ones(2), 1.0),
    dist.Gamma(1.0, 1.0).expand([1]),
    dist.Poisson(1.0),
    dist.Dirichlet(torch.ones(2)),
]


@pytest.mark.parametrize("value", GOOD, ids=str)
def test_what_is_accepted(value):
    check_hyperparameter("Family", "argument", value)


@pytest.mark.parametrize("value", BAD, ids=str)
def test_what_is_refused_by_name_and_value(value):
    with pytest.raises(ValueError, match=r"Family\(argument=") as error:
        check_hyperparameter("Family", "argument", value)
    assert str(value) in str(error.value)


@pytest.mark.parametrize("value", [*BAD[:10], dist.Gamma(2.0, 1.0), Learned(1.0)], ids=str)
def test_numbers_are_numbers_alone(value):
    with pytest.raises(ValueError, match=r"Family\(argument=.*out of range: use a positive finite number"):
        check_number("Family", "argument", value)
    check_number("Family", "argument", 2)


def test_is_number():
    assert [is_number(value) for value in (1, -2.5, 0, True, math.nan, math.inf, "1", None)] == [True] * 3 + [False] * 5


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_stated(dtype, device):
    like = torch.zeros(3, dtype=dtype)
    with poutine.trace() as capture:
        values = {
            "number": state_hyperparameter("number", 0.5, like),
            "learned": state_hyperparameter("learned", Learned(0.5), like),
            "drawn": state_hyperparameter("drawn", dist.Gamma(2.0, 3.0), like),
        }
    for value in values.values():
        assert value.shape == ()
        assert value.dtype == dtype
        assert value.device.type == device.type
    assert values["number"] == values["learned"] == 0.5
    assert set(capture.trace.nodes) == {"learned", "drawn"}
    assert capture.trace.nodes["learned"]["type"] == "param"
    assert values["learned"].requires_grad
    assert not values["number"].requires_grad
    assert capture.trace.nodes["drawn"]["fn"].rate.dtype == dtype
    assert pyro.param("learned").unconstrained().item() == pytest.approx(math.log(0.5))
    for other in (torch.float32, torch.float64):  # a model that has moved
        assert state_hyperparameter("learned", Learned(0.5), like.to(other)).dtype == other


def test_under_a_plate_of_draws_each_has_its_own():
    prior = HalfNormal(dist.Gamma(2.0, 3.0), per="layer", global_scale=dist.HalfCauchy(1.0))
    with pyro.plate("draws", 500, dim=-1), poutine.trace() as capture:
        w = prior.sample("w", torch.zeros(4, 3, dtype=torch.float64))
    nodes = capture.trace.nodes
    assert w.shape == (500, 4, 3)
    assert nodes["w_scale"]["value"].shape == nodes["w_global_scale"]["value"].shape == (500,)
    assert nodes["w_gamma"]["value"].shape == (500, 1, 1)
    scale, tau = (nodes[f"w_{name}"]["value"].reshape(500, 1, 1) for name in ("scale", "global_scale"))
    ratio = nodes["w_gamma"]["value"] / scale  # half-normal, whatever the scale
    assert abs((ratio.square().mean() - 1.0) / (2 / 500) ** 0.5) < 4
    standard = w / (nodes["w_gamma"]["value"] * tau)
    assert abs((standard.square().mean() - 1.0) / (2 / 6000) ** 0.5) < 4


def test_two_weights_have_hyperparameters_of_their_own():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    lifted = vbd.lift(net, Laplace(Learned(0.5)))
    vbd.VBDGuide(lifted)
    assert lifted.learned() == pytest.approx({"0.weight_scale": 0.5, "1.weight_scale": 0.5})
    assert not pyro.get_param_store()


def test_two_models_have_hyperparameters_of_their_own_which_their_state_holds(device):
    """And Pyro's store, which another model or process would find or miss them in, has none."""
    x = torch.randn(20, 3)
    kls = []
    for start in (0.5, 2.0):
        model = vbd.Regressor(torch.nn.Linear(3, 1), Laplace(Learned(start)), num_data=20)
        guide = vbd.VBDGuide(model)
        assert model.network.learned()["weight_scale"].item() == pytest.approx(start)
        vbd.fit(model, guide, [(x, x[:, 0])], epochs=3, lr=0.05, progress=False)
        kls.append((model, guide, vbd.VBD_ELBO().terms(model, guide, x, x[:, 0]).kl.item()))
    assert not pyro.get_param_store()
    for model, guide, kl in kls:
        assert vbd.VBD_ELBO().terms(model, guide, x, x[:, 0]).kl.item() == kl
        new = vbd.Regressor(torch.nn.Linear(3, 1), Laplace(Learned(1.0)), num_data=20)
        copied = vbd.VBDGuide(new)
        new.load_state_dict(model.state_dict())
        copied.load_state_dict(guide.state_dict())
        assert vbd.VBD_ELBO().terms(new, copied, x, x[:, 0]).kl.item() == kl


def test_each_weight_reads_its_own_whatever_the_names():
    """``<label>.<site>``, by which one is announced, may be the site of another."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.net = torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Linear(2, 2)

        def forward(self, x):
            return self.net(x @ self.weight)

    lifted = vbd.lift(Net(), {"weight": HalfNormal(Learned(0.5)), "*": HalfNormal(Learned(3.0))}, name="net")
    trace = poutine.trace(lifted).get_trace(torch.randn(5, 3))
    for site, scale in (("net.weight", 0.5), ("net.net.weight", 3.0)):
        mean = trace.nodes[f"{site}_gamma"]["fn"].base_dist.mean
        assert mean.unique().item() == pytest.approx(scale * math.sqrt(2 / math.pi), rel=1e-5)


@pytest.mark.parametrize("local", [False, True])
def test_svi_trains_them(local):
    x = torch.randn(20, 3)
    model = vbd.Regressor(torch.nn.Linear(3, 1), Laplace(Learned(0.5)), num_data=20)
    guide = vbd.VBDGuide(model)
    with pyro.settings.context(module_local_params=local):
        svi = pyro.infer.SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), vbd.VBD_ELBO())
        svi.step(x, x[:, 0])
    assert abs(model.network.learned()["weight_scale"].log() - math.log(0.5)) > 0.04


@pytest.mark.parametrize("start", [0.2, 5.0])
def test_a_learned_scale_is_that_of_the_weights(start):
    """Weights that are known are products of two standard normal numbers: the scale of the half-normal goes to 1."""
    weights = torch.randn(400) * torch.randn(400)
    prior = HalfNormal(Learned(start))

    def model():
        w = prior.sample("w", weights)
        with pyro.plate("data", 400):
            pyro.sample("y", dist.Normal(w, 0.01), obs=weights)

    guide = vbd.VBDGuide(model, scale_posterior="lognormal")
    vbd.fit(model, guide, [()], epochs=250, lr=0.05, lr_schedule=vbd.schedules.linear_decay(0.5), progress=False)
    assert abs(math.log(pyro.param("w_scale").item())) < 0.25


def test_checkpoint_and_resume_hold_the_learned_ones(tmp_path):
    def run(epochs):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        model = vbd.Regressor(torch.nn.Linear(3, 2), StudentT(Learned(3.0), Learned(0.1)), num_data=20)
        guide = vbd.VBDGuide(model, scale_posterior="lognormal")
        data = [(torch.ones(20, 3), torch.ones(20, 2))]
        vbd.fit(model, guide, data, epochs=epochs, checkpoint=tmp_path / f"run-{epochs > 2}", progress=False)
        return model.network.learned()["weight_df"].item()

    whole = run(4)
    first = run(2)
    (tmp_path / "run-False").rename(tmp_path / "run-True")
    assert first != whole
    assert run(4) == whole


def test_repr():
    assert repr(Laplace(Learned(0.5))) == "Laplace(scale=Learned(0.5))"
