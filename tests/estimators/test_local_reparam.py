import math

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from pyro import poutine
from torch import Tensor, nn

import pyro_vbd as vbd
from pyro_vbd.estimators.gaussian_tensor import GaussianTensor
from pyro_vbd.estimators.local_reparam import LocalReparam
from pyro_vbd.paired_traces import estimator_by_site, paired_traces
from pyro_vbd.posterior.mean_field import AdditiveNormal, MultiplicativeNormal

PRIOR = vbd.priors.GaussianUniform()


def posterior(*shape: int) -> AdditiveNormal:
    return AdditiveNormal(torch.randn(shape), torch.randn(shape) - 2)


# --- the messenger ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [AdditiveNormal, MultiplicativeNormal])
@pytest.mark.parametrize("event_dim", [0, 1, 2])
def test_gaussian_site_is_a_gaussian_tensor(kind, event_dim):
    q = kind(torch.randn(3, 4), torch.randn(4))
    with LocalReparam():
        value = pyro.sample("w", q.to_event(event_dim))
    assert isinstance(value, GaussianTensor)
    assert torch.equal(value.loc, q.loc.expand(3, 4))
    assert torch.equal(value.variance, q.variance)


def test_expanded_site_has_independent_copies():
    with LocalReparam(), pyro.plate("particles", 5, dim=-1):
        value = pyro.sample("w", posterior(3, 4).to_event(2))
    assert value.shape == value.variance.shape == (5, 3, 4)
    draw = value.draw()
    assert not torch.equal(draw[0], draw[1])


@pytest.mark.parametrize(
    "fn", [lambda: dist.Normal(0.0, 1.0), lambda: dist.Delta(torch.tensor(1.0)), lambda: dist.LogNormal(0.0, 1.0)]
)
def test_other_distributions_are_drawn(fn):
    with LocalReparam():
        assert type(pyro.sample("w", fn())) is Tensor


def test_observed_and_replayed_sites_keep_their_values():
    q, value = posterior(3).to_event(1), torch.zeros(3)
    with LocalReparam():
        assert pyro.sample("y", q, obs=value) is value
    with LocalReparam(), poutine.condition(data={"w": value}):
        assert pyro.sample("w", q) is value
    replayed = poutine.trace(lambda: pyro.sample("w", dist.Delta(value).to_event(1))).get_trace()
    with LocalReparam(), poutine.replay(trace=replayed):
        assert torch.equal(pyro.sample("w", q), value)


def test_where_chooses_sites_by_name():
    with LocalReparam(lambda name: name == "a"):
        a, b = (pyro.sample(name, posterior(3).to_event(1)) for name in "ab")
    assert isinstance(a, GaussianTensor)
    assert type(b) is Tensor


def test_outside_it_the_guide_draws_weights():
    model = vbd.Classifier(nn.Linear(3, 4), PRIOR, num_data=8)
    assert all(type(value) is Tensor for value in vbd.VBDGuide(model)().values())


# --- what local noise is another q of -------------------------------------------------------------------------------


def outputs(net: nn.Module, x: Tensor, estimator: str | dict[str, str], count: int) -> Tensor:
    """Draws of the outputs, under the same q for every estimator."""
    pyro.set_rng_seed(1)
    lifted = vbd.lift(net, PRIOR)
    guide = vbd.VBDGuide(lambda: lifted(x), init_log_var=-3.0)
    guide()
    with torch.no_grad():
        runs = (paired_traces(guide.model, guide, (), {}, estimator_by_site(estimator))[0] for _ in range(count))
        return torch.stack([run.nodes["_RETURN"]["value"] for run in runs])


def z_of_covariance(a: Tensor, b: Tensor) -> float:
    """z-score of the covariance of two independent outputs being 0."""
    product = (a - a.mean()) * (b - b.mean())
    return float(product.mean() / (product.std() / math.sqrt(len(a))))


@pytest.mark.usefixtures("float64")
def test_convolution_keeps_means_and_variances_but_not_covariances():
    """Two pixels of one datum share the weights, and share no local noise."""
    net, x = nn.Conv2d(1, 1, 2, bias=False), 1 + torch.rand(1, 1, 3, 2)
    nn.init.constant_(net.weight, 0.5)
    local = outputs(net, x.expand(2000, 1, 3, 2), "local", 1)[0].flatten(1)  # data share no local noise either
    weights = outputs(net, x, "weights", 400).flatten(1)
    mean = net(x).flatten().detach()
    variance = F.conv2d(x.square(), torch.full((1, 1, 2, 2), math.exp(-3.0))).flatten()
    for draws in (local, weights):
        count = len(draws)
        assert ((draws.mean(0) - mean) / (variance / count).sqrt()).abs().max() < 4
        assert ((draws.var(0) / variance - 1) / math.sqrt(2 / (count - 1))).abs().max() < 4
    assert abs(z_of_covariance(*local.T)) < 4
    assert z_of_covariance(*weights.T) > 8


@pytest.mark.parametrize(
    ("estimator", "shared"),
    [("local", ()), ("weights", (0, 1)), ({"0.*": "weights"}, (0,)), ({"1.*": "weights", "0.*": "local"}, (1,))],
)
def test_estimator_by_site(estimator, shared):
    """Two equal rows of data get equal outputs of a layer exactly where its weights are sampled."""

    class Both(nn.ModuleList):
        def forward(self, x):
            return torch.stack([layer(x) for layer in self], dim=-1)

    x = torch.ones(1, 3).expand(2, 3)
    draws = outputs(Both([nn.Linear(3, 1), nn.Linear(3, 1)]), x, estimator, 1)[0]
    same = (draws[0] == draws[1]).all(0)
    assert tuple(same.nonzero().flatten().tolist()) == shared


@pytest.mark.usefixtures("float64")
def test_linear_has_the_same_expected_loss_and_less_gradient_variance(capsys):
    net, x, y, count = nn.Linear(5, 3), torch.randn(64, 5), torch.randint(3, (64,)), 400
    losses, gradients = {}, {}
    for estimator in ("local", "weights"):
        model = vbd.Classifier(net, PRIOR, num_data=64)
        guide = vbd.VBDGuide(model, init_log_var=-2.0)
        elbo = vbd.VBD_ELBO(estimator=estimator)(model, guide)
        parameters = list(guide.parameters())
        runs = []
        for _ in range(count):
            loss = elbo(x, y)
            runs.append((loss.detach(), torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])))
        losses[estimator], gradients[estimator] = (torch.stack(part) for part in zip(*runs, strict=True))
    for values in (losses, gradients):
        local, weights = values["local"], values["weights"]
        z = (local.mean(0) - weights.mean(0)) / ((local.var(0) + weights.var(0)) / count).sqrt()
        assert z.abs().max() < 4
    ratio = gradients["weights"].var(0).sum() / gradients["local"].var(0).sum()
    with capsys.disabled():
        print(f"\nvariance of the gradient, weights / local: {ratio:.1f}")
    assert ratio > 3
