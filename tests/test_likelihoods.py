import math

import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F

import pyro_vbd as vbd
from pyro_vbd.likelihoods import MaskedBernoulli, MaskedCategorical, bernoulli, categorical

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 4, 3)])
@pytest.mark.parametrize("ignore_index", [None, -1, 2])
def test_categorical_is_the_cross_entropy(shape, ignore_index):
    logits, y = torch.randn(*shape, 4), torch.randint(4, shape)
    if ignore_index is not None:
        y[1] = ignore_index
    fn = categorical(logits, ignore_index, len(shape) - 1)
    expected = -F.cross_entropy(
        logits.movedim(-1, 1), y, reduction="none", ignore_index=-7 if ignore_index is None else ignore_index
    )
    assert (fn.batch_shape, fn.event_shape) == (shape[:1], shape[1:])
    torch.testing.assert_close(fn.log_prob(y), expected.flatten(1).sum(1) if len(shape) > 1 else expected)
    assert fn.log_prob(y).shape == shape[:1]


def test_ignored_targets_give_no_gradient():
    logits = torch.randn(3, 4, requires_grad=True)
    MaskedCategorical(logits, ignore_index=-1).log_prob(torch.tensor([0, -1, 3])).sum().backward()
    assert logits.grad.abs().sum(1).ne(0).tolist() == [True, False, True]
    logits = torch.randn(3, requires_grad=True)
    MaskedBernoulli(logits, ignore_index=-1).log_prob(torch.tensor([0.0, -1.0, 1.0])).sum().backward()
    assert logits.grad.ne(0).tolist() == [True, False, True]


def test_masked_categorical_expands_and_samples_classes():
    fn = MaskedCategorical(torch.randn(3, 4), ignore_index=-1).expand((5, 3))
    assert isinstance(fn, MaskedCategorical)
    assert fn.batch_shape == (5, 3)
    assert fn.sample((100,)).unique().tolist() == [0, 1, 2, 3]
    assert fn.log_prob(torch.full((5, 3), -1)).eq(0).all()


def test_masked_bernoulli_expands_and_samples_yes_and_no():
    fn = MaskedBernoulli(torch.randn(3), ignore_index=-1).expand((5, 3))
    assert isinstance(fn, MaskedBernoulli)
    assert fn.batch_shape == (5, 3)
    assert fn.sample((100,)).unique().tolist() == [0, 1]
    assert fn.log_prob(torch.full((5, 3), -1.0)).eq(0).all()


@pytest.mark.parametrize("shape", [(6,), (6, 5)])
@pytest.mark.parametrize("ignore_index", [None, -1, 1])
def test_bernoulli_is_the_binary_cross_entropy(shape, ignore_index):
    logits, y = torch.randn(shape), (torch.randn(shape) > 0).double()
    expected = -F.binary_cross_entropy_with_logits(logits, y, reduction="none")
    if ignore_index is not None:
        y[1] = ignore_index
        expected = expected.masked_fill(y == ignore_index, 0.0)
    fn = bernoulli(logits, ignore_index, len(shape) - 1)
    assert (fn.batch_shape, fn.event_shape) == (shape[:1], shape[1:])
    torch.testing.assert_close(fn.log_prob(y), expected.flatten(1).sum(1) if len(shape) > 1 else expected)


@pytest.mark.parametrize("learn", [True, False])
def test_gaussian(learn):
    likelihood, outputs, y = vbd.GaussianLikelihood(0.3, learn), torch.randn(6), torch.randn(6)
    assert likelihood.scale.item() == pytest.approx(0.3)
    assert [p.requires_grad for p in likelihood.parameters()] == [learn]
    torch.testing.assert_close(likelihood(outputs).log_prob(y), dist.Normal(outputs, 0.3).log_prob(y))


@pytest.mark.parametrize("scale", [0, -1.0, math.inf, math.nan])
def test_gaussian_refuses_a_scale_that_is_none(scale):
    with pytest.raises(ValueError, match="is no standard deviation: use a positive finite number"):
        vbd.GaussianLikelihood(scale)
