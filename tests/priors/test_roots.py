"""Positive roots against NumPy's, and at the ends of each dtype."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from pyro_vbd.priors.roots import cubic_root, increasing_root, quadratic_root

BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64])


def positive_root(*coefficients):
    roots = np.roots(coefficients)
    (root,) = roots[(abs(roots.imag) < 1e-9 * abs(roots.real)) & (roots.real > 0)].real
    return root


def test_quadratic_root_against_numpy(float64):
    rng = np.random.default_rng(0)
    for _ in range(25):
        a, b, c = 10 ** rng.uniform(-3, 3), rng.normal() * 10 ** rng.uniform(-2, 2), 10 ** rng.uniform(-3, 3)
        linear, constant = torch.tensor(b), torch.tensor(c)
        found = quadratic_root(torch.tensor(a), linear, constant)
        np.testing.assert_allclose(found.item(), positive_root(a, b, -c), rtol=1e-9)
        assert_close(quadratic_root(a, linear, constant), found)


@BOTH
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_quadratic_root_does_not_cancel(dtype, sign):
    """With |linear| large the root is constant / linear, or -linear / quadratic."""
    linear = torch.tensor([1e5, 1e9, 1e15], dtype=dtype) * sign
    found = quadratic_root(2.0, linear, torch.ones(3, dtype=dtype))
    assert_close(found, 1.0 / linear if sign > 0 else -linear / 2.0, rtol=1e-6, atol=0)


@BOTH
def test_quadratic_root_at_the_ends_of_the_dtype(dtype):
    finfo = torch.finfo(dtype)
    constant = torch.tensor([0.0, finfo.tiny, finfo.max * 1e-3], dtype=dtype)
    for linear in (-(finfo.max**0.9), -1.0, 0.0, 1.0, finfo.max**0.9):
        root = quadratic_root(torch.tensor(1.0, dtype=dtype), torch.full_like(constant, linear), constant)
        assert root.dtype == dtype
        assert (root > 0).all()
        assert root.isfinite().all()
    assert quadratic_root(1.0, torch.ones(1, dtype=dtype), constant[:1]) == finfo.tiny


def test_cubic_root_against_numpy(float64):
    rng = np.random.default_rng(0)
    for _ in range(25):
        a, b, c = 10 ** rng.uniform(-4, 4, 3)
        found = cubic_root(*(torch.tensor(value) for value in (a, b, c)))
        np.testing.assert_allclose(found.item(), positive_root(a, b, 0.0, -c), rtol=1e-9)


@BOTH
def test_cubic_root_at_the_ends_of_the_dtype(dtype):
    finfo = torch.finfo(dtype)
    constant = torch.tensor([0.0, finfo.tiny, 1e-30, 1e30], dtype=dtype)
    for cubic in (1e-6, 1.0, 1e6):
        root = cubic_root(torch.tensor(cubic, dtype=dtype), torch.ones((), dtype=dtype), constant)
        assert (root > 0).all()
        assert root.isfinite().all()
        assert_close(root[2], torch.tensor(1e-15, dtype=dtype))


@BOTH
def test_increasing_root_is_exact_to_the_last_bits(dtype):
    target = torch.tensor([1e-20, 1e-3, 1.0, 7.0, 1e20], dtype=dtype)
    found = increasing_root(lambda log_g: log_g - target.log(), target * 1e-9, target * 1e9)
    assert_close(found, target, rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=0)
