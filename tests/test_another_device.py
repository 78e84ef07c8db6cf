"""Models and guides that were made on one device and moved to another leave no tensor behind.

Without a GPU: torch's fake tensors know their shape and device alone, and refuse to be mixed with those of another device
as a GPU's would. "meta" is the one other device that every build of torch can differentiate on. What looks at values cannot
be asked of them.
"""

import pyro
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import pyro_vbd as vbd
from pyro_vbd import noise
from tests.test_properties import NETWORKS, PRIORS

AWAY = torch.device("meta")


@pytest.fixture
def away():
    """The mode of the fake tensors; real ones are taken for those of the CPU."""
    return FakeTensorMode(allow_non_fake_inputs=True)


@pytest.fixture(autouse=True)
def _on_cpu(device):
    if device.type != "cpu":
        pytest.skip("a GPU that is there is better than one that is not")


def move(mode, *modules):
    """What ``.to(AWAY)`` does: parameters and buffers move, and nothing else."""
    for module in (inner for outer in modules for inner in outer.modules()):
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(fake(mode, parameter), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = fake(mode, buffer)


def fake(mode, tensor):
    with mode:
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=AWAY)


def check_step(mode, model, guide, x, y, estimator):
    """The ELBO's terms and gradients, and what a guide is asked for beside them."""
    with mode, pyro.validation_enabled(False):  # which looks at values
        elbo = vbd.VBD_ELBO(estimator=estimator)
        terms = elbo.terms(model, guide, x, y)
        terms.elbo.backward()
        values = [terms.report(), *guide.sample(2).values(), *guide.log_alpha().values(), *vbd.masks(guide).values()]
        gradients = [parameter.grad for parameter in guide.parameters() if parameter.grad is not None]
    assert gradients
    assert {value.device for value in (*values, *gradients)} == {AWAY}


@pytest.mark.parametrize(
    ("prior", "scale_posterior"),
    [
        *((prior, "delta") for prior in PRIORS),
        *((prior, "lognormal") for prior in PRIORS if prior != "spike and slab"),  # two points have no density
    ],
)
def test_priors(prior, scale_posterior, away):
    x, y = torch.randn(4, 3), torch.randint(2, (4,))
    model = vbd.Classifier(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), PRIORS[prior]("weight"), num_data=9)
    guide = vbd.VBDGuide(model, scale_posterior=scale_posterior)
    vbd.VBD_ELBO()(model, guide)(x, y)  # what is kept from a run is of the CPU
    move(away, model, guide)
    check_step(away, model, guide, fake(away, x), fake(away, y), "local")


def test_a_learned_hyperparameter(away):
    """Pyro's store keeps it where it was made: its value goes to the weights."""
    x, y = torch.randn(4, 3), torch.randint(2, (4,))
    model = vbd.Classifier(nn.Linear(3, 2), vbd.priors.HalfNormal(vbd.priors.Learned(0.5)), num_data=9)
    guide = vbd.VBDGuide(model)
    vbd.VBD_ELBO()(model, guide)(x, y)
    move(away, model, guide)
    check_step(away, model, guide, fake(away, x), fake(away, y), "local")


@pytest.mark.parametrize("estimator", ["auto", "local", "weights", "flipout"])
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_and_estimators(network, estimator, away):
    net, shape = NETWORKS[network](4, 2)
    x = torch.randn(4, *shape)
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=9)
    guide = vbd.VBDGuide(model)
    move(away, model, guide)
    check_step(away, model, guide, fake(away, x), fake(away, torch.zeros(4, dtype=torch.long)), estimator)


@pytest.mark.parametrize("alpha", ["weight", "unit", "layer", 0.5])
@pytest.mark.parametrize("per", ["weight", "output", "input", "layer"])
def test_what_shares_a_number(per, alpha, away):
    x, y = torch.randn(4, 3), torch.randn(4, 2)
    model = vbd.Regressor(nn.Linear(3, 2), vbd.priors.Horseshoe(per=per), num_data=9)
    guide = vbd.VBDGuide(model, alpha=alpha)
    move(away, model, guide)
    check_step(away, model, guide, fake(away, x), fake(away, y), "auto")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "make",
    [
        lambda: noise.Gate(3),
        lambda: noise.LogNormalGate(3),
        lambda: noise.GaussianNoise(0.5),
        lambda: noise.GaussianDropout(nn.Linear(3, 2), 0.5),
        lambda: noise.ConcreteDropout(nn.Linear(3, 2), 0.1),
        lambda: noise.AdversarialDropout(0.4),
    ],
    ids=lambda make: type(make()).__name__,
)
def test_noise(make, training, away):
    module = make().train(training)
    move(away, module)
    with away:
        assert module(torch.empty(4, 3, device=AWAY)).device == AWAY
        if isinstance(module, noise.Penalised):
            assert noise.penalty(module).device == AWAY


def test_inputs_of_the_cpu_are_brought_to_the_model(away):
    model = vbd.Classifier(nn.Linear(3, 2), vbd.priors.GaussianUniform(), num_data=9)
    guide = vbd.VBDGuide(model)
    move(away, model, guide)
    x = torch.randn(4, 3)
    for inputs in (x, [(x, torch.zeros(4, dtype=torch.long))]):
        with away, pyro.validation_enabled(False):
            assert vbd.predict(model, guide, inputs, num_samples=1).probs.device == AWAY
