"""Flipout: each datum's output has the mean, variance and gradient of weight sampling, and data are uncorrelated."""

import copy

import pyro
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.estimators.flipout import FlipoutTensor
from pyro_vbd.estimators.gaussian_tensor import GaussianTensor

COUNT = 2000
LAYERS = [
    (F.linear, (3, 4), (2, 4), {}),
    (F.linear, (3, 2, 4), (2, 4), {}),
    (F.conv1d, (3, 4, 6), (2, 4, 3), {"stride": 2}),
    (F.conv2d, (3, 4, 5, 5), (2, 2, 3, 3), {"groups": 2, "padding": 1}),
    (F.conv3d, (3, 2, 3, 3, 3), (2, 2, 2, 2, 2), {}),
    (F.conv_transpose2d, (3, 2, 3, 3), (2, 3, 2, 2), {"stride": 2}),
]


def parameters(shape):
    return torch.randn(shape), torch.rand(shape) * 0.5 + 0.1


def draws(function, values, weight, bias, settings, kind=FlipoutTensor, count=COUNT):
    return torch.stack(
        [function(values, kind(*weight), None if bias is None else kind(*bias), **settings) for _ in range(count)]
    )


def z_of_mean(samples, expected):
    return (samples.mean(0) - expected) / (samples.var(0) / len(samples)).sqrt()


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(("function", "values", "weight", "settings"), LAYERS)
@pytest.mark.parametrize("with_bias", [True, False])
def test_mean_and_variance_of_outputs_are_those_of_a_drawn_weight(function, values, weight, settings, with_bias):
    x, w = torch.randn(values), parameters(weight)
    outputs = weight[1] if "transpose" in function.__name__ else weight[0]
    b = parameters((outputs,)) if with_bias else None
    samples = draws(function, x, w, b, settings)
    mean = function(x, w[0], b[0] if with_bias else None, **settings)
    variance = function(x.square(), w[1], b[1] if with_bias else None, **settings)
    assert samples.shape[1:] == mean.shape
    assert z_of_mean(samples, mean).abs().max() < 4.5  # the largest of up to 150
    assert z_of_mean((samples - mean).square(), variance).abs().max() < 5.5  # skewed


def correlation_z(a, b, mean_a, mean_b):
    """How far a correlation is from 0, where each factor has its mean taken off."""
    products = (a - mean_a) * (b - mean_b)
    return z_of_mean(products, torch.zeros_like(mean_a))


@pytest.mark.usefixtures("float64")
def test_two_data_are_uncorrelated_and_weight_sampling_is_not():
    x = torch.randn(1, 4).expand(2, 4)
    w, b = parameters((3, 4)), parameters((3,))
    mean = F.linear(x, w[0], b[0])
    flipped = draws(F.linear, x, w, b, {})
    z = correlation_z(flipped[:, 0], flipped[:, 1], *mean)
    assert z.abs().max() < 4
    weights = torch.stack([F.linear(x, GaussianTensor(*w).draw(), GaussianTensor(*b).draw()) for _ in range(COUNT)])
    assert correlation_z(weights[:, 0], weights[:, 1], *mean).min() > 8
    assert (flipped[:, 0] != flipped[:, 1]).any()


@pytest.mark.usefixtures("float64")
def test_one_datum_meets_one_weight_at_every_place():
    """A constant image under a 1x1 convolution, and equal tokens under a linear layer, have equal outputs everywhere."""
    w, b = FlipoutTensor(*parameters((2, 3, 1, 1))), FlipoutTensor(*parameters((2,)))
    image = F.conv2d(torch.randn(4, 3, 1, 1).expand(4, 3, 5, 5), w, b)
    torch.testing.assert_close(image, image[..., :1, :1].expand_as(image))
    tokens = F.linear(torch.randn(4, 1, 3).expand(4, 6, 3), FlipoutTensor(*parameters((2, 3))))
    torch.testing.assert_close(tokens, tokens[:, :1].expand_as(tokens))


def test_another_use_of_the_weight_in_the_same_run_has_the_same_draw():
    w = FlipoutTensor(*parameters((2, 3)))
    F.linear(torch.randn(4, 3), w)
    torch.testing.assert_close(w.exp(), (w.loc + w.deviation()).exp())  # no rule for exp: the draw
    again = FlipoutTensor(*parameters((2, 3)))
    norm = again.norm()  # it has been read: flipped signs would not fit the norm
    torch.testing.assert_close(F.linear(torch.eye(3), again), again.draw().T)
    torch.testing.assert_close(norm, again.draw().norm())


def test_a_weight_first_flipped_under_no_grad_still_learns():
    loc, variance = (part.requires_grad_() for part in parameters((2, 3)))
    weight, x = FlipoutTensor(loc, variance), torch.randn(4, 3)
    with torch.no_grad():
        F.linear(x, weight)
    F.linear(x, weight).square().sum().backward()
    assert loc.grad.ne(0).all()
    assert variance.grad.ne(0).all()


def test_views_and_factors_keep_the_draw():
    w = FlipoutTensor(*parameters((3, 2)))
    view = w.t()
    assert isinstance(view, FlipoutTensor)
    torch.testing.assert_close(view.deviation(), w.deviation().T)
    torch.testing.assert_close((w * 0.5).deviation(), 0.5 * w.deviation())
    torch.testing.assert_close((0.5 * w).draw(), 0.5 * w.draw())


def test_an_input_without_a_batch_gets_a_drawn_weight():
    w = FlipoutTensor(*parameters((2, 3)))
    x = torch.randn(3)
    torch.testing.assert_close(F.linear(x, w), w.draw() @ x)


def test_bias_that_is_a_number_or_of_another_kind():
    x, w = torch.randn(5, 3), parameters((2, 3))
    tiny = torch.full((2, 3), 1e-30)
    plain = torch.randn(2)
    torch.testing.assert_close(F.linear(x, FlipoutTensor(w[0], tiny), plain), F.linear(x, w[0], plain))
    other = GaussianTensor(*parameters((2,)))
    torch.testing.assert_close(F.linear(x, FlipoutTensor(w[0], tiny), other), F.linear(x, w[0], other.draw()))


@pytest.mark.parametrize("place", ["input=", "all"])
def test_keyword_arguments(place):
    x, w, b = torch.randn(2, 3, 5, 5), parameters((4, 3, 3, 3)), torch.randn(4)
    weight = FlipoutTensor(w[0], torch.full_like(w[0], 1e-30))
    named = {"weight": weight, "bias": b, "stride": 2}
    values = F.conv2d(input=x, **named) if place == "all" else F.conv2d(x, **named)
    torch.testing.assert_close(values, F.conv2d(x, w[0], b, 2))


def gradients(net, x, y, estimator, count=300, **settings):
    """Gradients of the loss in the guide's parameters, one row a run, under the same q for every estimator."""
    model = vbd.Classifier(copy.deepcopy(net), vbd.priors.GaussianUniform(), num_data=len(x))
    guide = vbd.VBDGuide(model, init_log_var=-2.0)
    loss = vbd.VBD_ELBO(estimator=estimator, **settings)(model, guide)
    pyro.set_rng_seed(3)
    rows = [torch.autograd.grad(loss(x, y), list(guide.parameters())) for _ in range(count)]
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("settings", [{}, {"num_particles": 2, "vectorize_particles": True}])
def test_gradients_are_unbiased(settings):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(8, 3))
    x, y = torch.randn(16, 1, 4, 4), torch.randint(3, (16,))
    flipout, weights = (gradients(net, x, y, estimator, **settings) for estimator in ("flipout", "weights"))
    z = (flipout.mean(0) - weights.mean(0)) / ((flipout.var(0) + weights.var(0)) / len(flipout)).sqrt()
    assert z.abs().max() < 4
    assert z.square().mean() < 1.6


@pytest.mark.usefixtures("float64")
def test_gradients_do_not_share_their_noise_between_data():
    """Sixteen equal data: weight sampling adds the same error sixteen times, flipout adds sixteen errors."""
    net, x, y = nn.Linear(5, 3), torch.randn(1, 5).expand(16, 5), torch.ones(16, dtype=torch.long)
    variances = {e: gradients(net, x, y, e).var(0).sum() for e in ("flipout", "weights", "local")}
    assert 10 < variances["weights"] / variances["flipout"] < 22
    assert 10 < variances["weights"] / variances["local"] < 22
