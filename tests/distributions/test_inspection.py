"""The looks inside distributions."""

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import AffineTransform
from torch.testing import assert_close

from pyro_vbd.distributions import CentredNormal, base_distribution, is_positive, map_tensors, tensors, unchecked


@pytest.mark.parametrize(
    "wrap",
    [
        lambda p: p,
        lambda p: p.to_event(1),
        lambda p: p.expand(torch.Size([2, 3])),
        lambda p: p.expand(torch.Size([2, 3])).to_event(1).expand(torch.Size([4, 2])).to_event(2),
    ],
    ids=["bare", "to_event", "expand", "all"],
)
@pytest.mark.parametrize("kind", [CentredNormal, dist.HalfCauchy, dist.VonMises3D])  # Pyro wraps the last in an expand()
def test_base_distribution_is_behind_expand_and_to_event(kind, wrap):
    parameter = torch.rand((3, 3) if kind is dist.VonMises3D else 3) + 0.5
    assert type(base_distribution(wrap(kind(parameter)))) is kind


def test_tensors_of_a_distribution_and_of_those_in_it():
    loc, scale = torch.randn(3), torch.rand(3)
    assert {name: value.tolist() for name, value in tensors(dist.Normal(loc, scale))} == {
        "loc": loc.tolist(),
        "scale": scale.tolist(),
    }
    nested = dist.LogNormal(loc, scale).to_event(1)
    assert {name for name, _ in tensors(nested)} >= {"loc", "scale"}


def test_tensors_of_integers_are_left_out():
    assert {name for name, _ in tensors(dist.Delta(torch.tensor([1, 2]), torch.zeros(2)))} == {"log_density"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: dist.Normal(torch.zeros(3), torch.ones(3)),
        lambda: dist.InverseGamma(torch.full((), 2.0), torch.full((), 3.0)),
        lambda: dist.HalfCauchy(torch.full((), 2.0)),
        lambda: dist.LogNormal(torch.zeros(3), torch.ones(3)).to_event(1),
    ],
    ids=["Normal", "InverseGamma", "HalfCauchy", "LogNormal in Independent"],
)
def test_map_tensors_makes_a_new_distribution(make):
    fn = make()
    mapped = map_tensors(fn, torch.Tensor.double)
    assert type(mapped) is type(fn)
    assert all(value.dtype == torch.float64 for _, value in tensors(mapped))
    assert all(value.dtype == torch.float32 for _, value in tensors(fn))
    value = torch.full(fn.shape(), 0.7)
    assert mapped.log_prob(value.double()).dtype == torch.float64
    assert_close(mapped.log_prob(value.double()).float(), fn.log_prob(value))


def test_map_tensors_maps_the_values():
    mapped = map_tensors(dist.Normal(1.0, 2.0).expand(torch.Size([3])).to_event(1), lambda value: 10 * value)
    assert_close(base_distribution(mapped).loc, torch.full((3,), 10.0))
    assert_close(base_distribution(mapped).scale, torch.full((3,), 20.0))


def test_inverses_of_transforms_are_looked_into_and_mapped():
    transform = AffineTransform(torch.tensor(1.0), torch.tensor(2.0))
    inverse, value = transform.inv, torch.tensor(7.0, dtype=torch.float64)  # kept: the transform knows it from now on
    assert {name for name, _ in tensors(inverse)} == {"loc", "scale"}
    for mapped in (map_tensors(inverse, torch.Tensor.double), map_tensors(transform, torch.Tensor.double).inv):
        assert {part.dtype for _, part in tensors(mapped)} == {torch.float64}
        assert_close(mapped.inv(mapped(value)), value)
    assert_close(map_tensors(inverse, lambda part: 10 * part)(torch.tensor(50.0)), torch.tensor(2.0))


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda: dist.Gamma(torch.ones(3), 1.0), True),
        (lambda: dist.HalfCauchy(torch.tensor(1.0)).expand([2, 3]).to_event(2), True),
        (lambda: dist.Uniform(torch.zeros(4), torch.tensor([1.0, 2.0, 3.0, 4.0])), True),
        (lambda: dist.Uniform(torch.tensor([-1.0, 0.0]), 1.0), False),
        (lambda: dist.Normal(torch.zeros(3), 1.0), False),
        (lambda: dist.Poisson(torch.ones(3)), False),
        (lambda: dist.Dirichlet(torch.ones(3)), False),
    ],
)
def test_is_positive(fn, expected):
    assert is_positive(fn()) is expected


@pytest.mark.parametrize("make", [lambda: dist.HalfCauchy(torch.ones(2)), lambda: dist.Beta(torch.ones(2), 1.0)])
def test_unchecked_is_a_copy_that_takes_values_of_any_shape(make):
    fn = make()
    free, value = unchecked(fn), torch.full((3,), 0.5)
    one = map_tensors(free, lambda v: v.flatten()[:1])
    assert_close(one.log_prob(value), fn.log_prob(torch.full((2,), 0.5))[0].expand(3))
    with pytest.raises(ValueError, match="not broadcastable"):
        fn.log_prob(value)
