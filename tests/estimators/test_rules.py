"""Each rule: the exact moments of outputs, and of weights in another shape or unit."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_vbd.estimators.gaussian_tensor import GaussianTensor, drawn, sample_output
from tests.estimators.moments import DRAWS, assert_moments, exact_moments, fresh, gaussian

pytestmark = pytest.mark.usefixtures("float64")


# --- functions with a rule -------------------------------------------------------------------------------------------

#: (shapes of the data, shapes of the weights, the function of all of them), with the data's batch first.
LINEAR = {
    "linear": ([(3, 4)], [(2, 4)], F.linear),
    "linear, bias": ([(2, 4), (2,)], [(2, 4)], lambda x, b, w: F.linear(x, w, b)),
    "linear, Gaussian bias": ([(3, 4)], [(2, 4), (2,)], F.linear),
    "linear, keywords": ([(3, 4)], [(2, 4), (2,)], lambda x, w, b: F.linear(input=x, bias=b, weight=w)),
    "linear of tokens": ([(2, 2, 4)], [(2, 4)], F.linear),
    "linear, transposed weight": ([(3, 4)], [(4, 2)], lambda x, w: F.linear(x, w.T)),
    "linear, halved weight": ([(3, 4)], [(2, 4)], lambda x, w: F.linear(x, w * 0.5)),
    "linear, part of the weight": ([(3, 4)], [(5, 4)], lambda x, w: F.linear(x, w[1:3])),
    "bilinear": ([(3, 2), (3, 4)], [(2, 2, 4), (2,)], F.bilinear),
    "matmul": ([(3, 4)], [(4, 2)], torch.matmul),
    "x @ W": ([(3, 4)], [(4, 2)], lambda x, w: x @ w),
    "x @ w": ([(3, 4)], [(4,)], lambda x, w: x @ w),
    "W @ x": ([(4, 3)], [(2, 4)], lambda x, w: w @ x),
    "W @ x, batches": ([(3, 4, 2)], [(2, 4)], lambda x, w: w @ x),
    "x.matmul(W)": ([(3, 4)], [(4, 2)], lambda x, w: x.matmul(w)),
    "W.__rmatmul__(x)": ([(3, 4)], [(4, 2)], lambda x, w: w.__rmatmul__(x)),
    "mm": ([(3, 4)], [(4, 2)], torch.mm),
    "mm, left": ([(4, 3)], [(2, 4)], lambda x, w: w.mm(x)),
    "mv": ([(3, 4)], [(4,)], torch.mv),
    "bmm": ([(2, 3, 4)], [(2, 4, 2)], torch.bmm),
    "addmm": ([(3, 4), (2,)], [(4, 2)], lambda x, b, w: torch.addmm(b, x, w)),
    "b.addmm": ([(3, 4), (3, 2)], [(4, 2)], lambda x, b, w: b.addmm(x, w)),
    "conv1d": ([(2, 2, 6)], [(2, 2, 3), (2,)], lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1)),
    "conv2d": ([(2, 2, 5, 4)], [(2, 2, 3, 2)], lambda x, w: F.conv2d(x, w, None, (2, 1), (1, 0))),
    "conv2d, bias": ([(2, 2, 4, 4), (2,)], [(2, 2, 3, 3)], lambda x, b, w: F.conv2d(x, w, b)),
    "conv2d, Gaussian bias": ([(2, 2, 4, 4)], [(2, 2, 3, 3), (2,)], F.conv2d),
    "conv2d, same": ([(2, 2, 4, 3)], [(2, 2, 3, 1)], lambda x, w: F.conv2d(x, w, padding="same")),
    "conv2d, dilation": ([(2, 1, 5, 5)], [(2, 1, 2, 2)], lambda x, w: F.conv2d(x, w, dilation=2)),
    "conv2d, groups": ([(2, 4, 3, 3)], [(4, 2, 2, 2)], lambda x, w: F.conv2d(x, w, groups=2)),
    "conv2d, one image": ([(2, 4, 4)], [(2, 2, 3, 3)], F.conv2d),
    "conv3d": ([(1, 2, 3, 3, 3)], [(2, 2, 2, 3, 2), (2,)], F.conv3d),
    "conv_transpose1d": ([(2, 2, 4)], [(2, 3, 3), (3,)], lambda x, w, b: F.conv_transpose1d(x, w, b, stride=2)),
    "conv_transpose2d": (
        [(1, 4, 3, 2)],
        [(4, 1, 2, 3)],
        lambda x, w: F.conv_transpose2d(x, w, None, 2, padding=1, output_padding=1, groups=2, dilation=(1, 2)),
    ),
    "conv_transpose3d": ([(1, 2, 2, 2, 2)], [(2, 1, 2, 2, 2)], F.conv_transpose3d),
    "x * w": ([(3, 4)], [(4,)], lambda x, w: x * w),
    "w * x": ([(3, 2, 4)], [(2, 4)], lambda x, w: w * x),
    "mul": ([(3, 4)], [(1, 4)], lambda x, w: torch.mul(w, x)),
    "multiply": ([(3, 4)], [()], lambda x, w: x.multiply(w)),
    "gain of a channel": ([(2, 3, 4)], [(3, 1)], lambda x, w: x * w),
}


def build(name: str) -> tuple[Callable[..., Tensor], list[GaussianTensor]]:
    data_shapes, weight_shapes, function = LINEAR[name]
    data = [torch.randn(shape) for shape in data_shapes]
    return lambda *weights: function(*data, *weights), [gaussian(*shape) for shape in weight_shapes]


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", LINEAR)
def test_local_draws_and_weight_draws_have_the_exact_moments(name):
    function, weights = build(name)
    mean, variance = exact_moments(function, weights)
    with torch.no_grad():
        local = torch.stack([function(*map(fresh, weights)) for _ in range(DRAWS)])
        sampled = torch.stack([function(*(fresh(w).draw() for w in weights)) for _ in range(DRAWS)])
    assert_moments(local, mean, variance)
    assert_moments(sampled, mean, variance)


@pytest.mark.parametrize("name", LINEAR)
def test_rule_samples_outputs_independently_and_leaves_the_weight_undrawn(name):
    function, weights = build(name)
    with torch.no_grad():
        output = torch.stack([function(*map(fresh, weights)).flatten() for _ in range(500)])
    correlation = output.T.corrcoef()[output.var(0) > 1e-9][:, output.var(0) > 1e-9]
    assert (correlation - torch.eye(len(correlation))).abs().max() * math.sqrt(500) < 5
    function(*weights)
    assert not any(weight.is_drawn for weight in weights)
    assert all(weight.used for weight in weights)


@pytest.mark.parametrize("name", LINEAR)
def test_gradients_reach_loc_and_variance(name):
    function, weights = build(name)
    function(*weights).square().sum().backward()
    for weight in weights:
        for parameter in (weight.loc, weight.variance):
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().min() > 0 or name in ("linear, part of the weight", "conv_transpose2d")
            assert parameter.grad.abs().max() > 0


def test_gradient_is_unbiased():
    """E[sum of y^2] = mean^2 + variance, whose gradients in both are known."""
    x, weight = torch.randn(3, 4), gaussian(2, 4)
    mean, variance = F.linear(x, weight.loc), F.linear(x.square(), weight.variance)
    exact = torch.autograd.grad((mean.square() + variance).sum(), (weight.loc, weight.variance))
    draws = [
        torch.autograd.grad(F.linear(x, fresh(weight)).square().sum(), (weight.loc, weight.variance)) for _ in range(DRAWS)
    ]
    for value, samples in zip(exact, zip(*draws, strict=True), strict=True):
        samples = torch.stack(samples)
        assert ((samples.mean(0) - value) / (samples.std(0) / math.sqrt(DRAWS))).abs().max() < 4


@pytest.mark.parametrize(
    "function",
    [
        lambda w: F.linear(torch.zeros(2, 3), w),
        lambda w: torch.zeros(2, 3) @ w.T,
        lambda w: F.conv1d(torch.zeros(1, 3, 4), w[..., None]),
        lambda w: torch.zeros(5, 3, 3) * w,
    ],
    ids=["linear", "matmul", "conv1d", "product"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_black_image_has_finite_gradients(function, dtype):
    torch.set_default_dtype(dtype)
    weight = gaussian(3, 3)
    output = function(weight)
    output.sum().backward()
    assert output.abs().max() < 1e-15
    for parameter in (weight.loc, weight.variance):
        assert parameter.grad.isfinite().all()


def test_variance_that_underflows_has_a_finite_gradient():
    loc, log_var = torch.ones(3, requires_grad=True), torch.full((3,), -1e4, requires_grad=True)
    sample_output(loc, log_var.exp()).sum().backward()
    assert loc.grad.eq(1).all()
    assert log_var.grad.eq(0).all()


@pytest.mark.parametrize("padding_idx", [None, 1])
def test_embedding(padding_idx):
    """Each look-up has noise of its own, and the padding row no gradient."""
    tokens, weight = torch.tensor([[0, 1], [2, 2]]), gaussian(4, 3)
    draws = torch.stack([F.embedding(tokens, fresh(weight), padding_idx=padding_idx) for _ in range(DRAWS)]).detach()
    assert_moments(draws, weight.loc.detach()[tokens], weight.variance.detach()[tokens])
    assert torch.corrcoef(draws[:, 1, :, 0].T)[0, 1].abs() * math.sqrt(DRAWS) < 4
    F.embedding(tokens, weight, padding_idx).sum().backward()
    assert not weight.is_drawn
    for parameter in (weight.loc, weight.variance):
        assert parameter.grad[1].eq(0).all() == (padding_idx == 1)
        assert parameter.grad[2].ne(0).all()


def test_a_sparse_embedding_has_dense_gradients():
    """A sparse one cannot be carried on to the logarithm of the variance."""
    tokens, log_var = torch.tensor([0, 2, 2]), torch.zeros(4, 3, requires_grad=True)
    F.embedding(tokens, GaussianTensor(torch.randn(4, 3), log_var.exp()), sparse=True).square().sum().backward()
    assert not log_var.grad.is_sparse
    assert log_var.grad.ne(0).all(1).tolist() == [True, False, True, False]


def test_embedding_with_max_norm_takes_the_draw():
    tokens, weight = torch.tensor([0, 2, 2]), gaussian(4, 3)
    output = F.embedding(tokens, weight, max_norm=0.1)
    assert torch.equal(output, weight.draw()[tokens])
    assert output.norm(dim=1).max() < 0.1 + 1e-5


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int64, torch.bool])
def test_product_with_integers_squares_them_as_numbers(dtype):
    weight = gaussian(3)
    factor = torch.tensor([[0, 1, 100], [1, 0, 100]]).to(dtype)
    draws = torch.stack([fresh(weight) * factor for _ in range(DRAWS)]).detach()
    number = factor.double()
    assert_moments(draws, weight.loc.detach() * number, weight.variance.detach() * number.square())


@pytest.mark.parametrize("factor", [1j, torch.tensor(1j, device="cpu")], ids=["number", "tensor"])
def test_complex_factor_takes_the_draw(factor):
    weight = gaussian(3)
    factor = factor.to(weight.device) if isinstance(factor, Tensor) else factor
    assert torch.equal(drawn(weight * factor), weight.draw() * factor)


def test_weight_cast_to_complex_numbers_takes_the_draw():
    weight = fresh(gaussian(3, 4))
    assert weight.to(torch.float32).loc.dtype == torch.float32
    values = torch.randn(2, 3, dtype=torch.complex128)
    assert torch.equal(values @ weight.to(torch.complex128), values @ weight.draw().to(torch.complex128))


def test_product_without_a_batch_in_front_takes_the_draw():
    """A gain per output unit meets all inputs of the unit."""
    gain, matrix = gaussian(4, 1), torch.randn(4, 3)
    assert torch.equal(gain * matrix, gain.draw() * matrix)


# --- views and rescaled weights: one draw for all --------------------------------------------------------------------

VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "t": lambda w: w[0].t(),
    "T": lambda w: w[0].T,
    "mT": lambda w: w.mT,
    "transpose": lambda w: w.transpose(0, 2),
    "transpose, keywords": lambda w: torch.transpose(w, dim0=0, dim1=1),
    "swapaxes": lambda w: w.swapaxes(0, 1),
    "permute": lambda w: w.permute(2, 0, 1),
    "movedim": lambda w: w.movedim(0, -1),
    "reshape": lambda w: w.reshape(4, -1),
    "view": lambda w: w.view(2, 12),
    "flatten": lambda w: w.flatten(1),
    "unflatten": lambda w: w.unflatten(1, (3, 1)),
    "unsqueeze": lambda w: w.unsqueeze(1),
    "squeeze": lambda w: w[:, :1].squeeze(1),
    "None": lambda w: w[:, None],
    "slice": lambda w: w[:, 1:, ::2],
    "number": lambda w: w[-1],
    "ellipsis": lambda w: w[..., 0],
    "narrow": lambda w: w.narrow(2, 1, 2),
    "select": lambda w: torch.select(w, 1, 0),
    "chunk": lambda w: w.chunk(2, dim=2)[1],
    "split": lambda w: torch.split(w, [1, 2], 1)[1],
    "Tensor.split": lambda w: w.split(2, dim=-1)[1],
    "tensor_split": lambda w: w.tensor_split(3, dim=1)[2],
    "unbind": lambda w: w.unbind(1)[2],
    "iteration": lambda w: next(iter(w)),
    "contiguous": lambda w: w.mT.contiguous(),
    "to": lambda w: w.to(torch.float32),
    "float": lambda w: w.float(),
    "double": lambda w: w.double(),
    "detach": lambda w: w.detach(),
    "of a view": lambda w: w.mT.reshape(8, 3)[2:, 0],
}


@pytest.mark.parametrize("name", VIEWS)
def test_view_keeps_mean_and_variance_and_shares_the_draw(name):
    view, weight = VIEWS[name], gaussian(2, 3, 4)
    seen = view(weight)
    assert isinstance(seen, GaussianTensor)
    assert not weight.used
    assert torch.equal(seen.loc, view(weight.loc))
    assert torch.equal(seen.variance, view(weight.variance))
    assert (seen.shape, seen.dtype) == (seen.loc.shape, seen.loc.dtype)
    assert torch.equal(seen.exp(), view(weight.draw()).exp())
    assert weight.used == {"exp"}


@pytest.mark.parametrize(
    "scaled",
    [lambda w, m: w * m, lambda w, m: m * w, lambda w, m: w.mul(m), lambda w, m: w * 2, lambda w, m: -3.0 * w,
     lambda w, m: w * m[0], lambda w, m: w * m.bool(), lambda w, m: (w * m).T * 2, lambda w, m: w * m[0, 0]],
)  # fmt: skip
def test_rescaled_weight_shares_the_draw(scaled):
    weight, mask = gaussian(3, 4), torch.tensor([[1.0, 0, 2, -1]] * 3)
    seen = scaled(weight, mask)
    assert isinstance(seen, GaussianTensor)
    assert not weight.used
    assert torch.equal(seen.loc, scaled(weight.loc, mask))
    factor = scaled(torch.ones(3, 4), mask)
    assert torch.allclose(
        seen.variance, factor.square() * (weight.variance if factor.shape == (3, 4) else weight.variance.T)
    )
    assert torch.equal(seen.draw(), scaled(weight.draw(), mask))


def test_masked_weight_has_the_masked_moments():
    x, mask, weight = torch.randn(3, 4), torch.tensor([1.0, 0, 1, 0]).expand(2, 4), gaussian(2, 4)
    mean, variance = exact_moments(lambda w: F.linear(x, w * mask), [weight])
    assert_moments(torch.stack([F.linear(x, fresh(weight) * mask) for _ in range(DRAWS)]).detach(), mean, variance)


def test_rules_hold_under_vmap():
    x, locs, variances = torch.randn(3, 4), torch.randn(DRAWS, 2, 4), torch.rand(2, 4)
    locs = locs[:1].expand(DRAWS, 2, 4)
    draws = torch.vmap(lambda loc: F.linear(x, GaussianTensor(loc, variances)), randomness="different")(locs)
    assert_moments(draws, F.linear(x, locs[0]), F.linear(x.square(), variances))
