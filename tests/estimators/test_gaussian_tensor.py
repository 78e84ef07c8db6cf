import math
from collections.abc import Callable, Sequence

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pyro_vbd.estimators.gaussian_tensor import GaussianTensor, drawn, sample_output

pytestmark = pytest.mark.usefixtures("float64")
DRAWS = 1000


def gaussian(*shape: int) -> GaussianTensor:
    """Leaves as loc and variance, so that gradients can be asked of them."""
    return GaussianTensor(torch.randn(shape).requires_grad_(), (0.1 + torch.rand(shape)).requires_grad_())


def fresh(weight: GaussianTensor) -> GaussianTensor:
    """The same Gaussian, not yet drawn."""
    return GaussianTensor(weight.loc, weight.variance)


def exact_moments(function: Callable[..., Tensor], weights: Sequence[GaussianTensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance of a function that is linear in its weights, from its Jacobian: no rule of the library."""
    locs = tuple(weight.loc.detach() for weight in weights)
    jacobians = torch.func.jacrev(function, argnums=tuple(range(len(locs))))(*locs)
    mean = function(*locs)
    variance = torch.zeros_like(mean)
    for jacobian, weight in zip(jacobians, weights, strict=True):
        variance += (jacobian.square() * weight.variance.detach()).reshape(*mean.shape, -1).sum(-1)
    return mean, variance


def assert_moments(draws: Tensor, mean: Tensor, variance: Tensor) -> None:
    """z-scores of the draws' means and variances, over the leading dimension, lie within 4."""
    count = len(draws)
    certain = variance == 0
    assert torch.allclose(draws[:, certain], mean[certain].expand(count, -1), atol=1e-9)
    draws, mean, variance = draws[:, ~certain], mean[~certain], variance[~certain]
    z_mean = (draws.mean(0) - mean) / (variance / count).sqrt()
    z_variance = (draws.var(0) / variance - 1) / math.sqrt(2 / (count - 1))
    assert z_mean.abs().max() < 4, z_mean
    assert z_variance.abs().max() < 4, z_variance


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


# --- any other function: one draw, the same at every use -------------------------------------------------------------

ANY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "expand": lambda w, x: x @ w.expand(2, 4, 4),
    "duplicate indices": lambda w, x: x @ w[[0, 0, 1, 1]],
    "index tensor": lambda w, x: x @ w[torch.tensor([0, 0, 3, 3])],
    "index tensor in a tuple": lambda w, x: w[:, torch.tensor([1, 1])],
    "boolean index": lambda w, x: w[w > 0],
    "index_select": lambda w, x: x @ w.index_select(0, torch.tensor([1, 1, 1, 1])),
    "gather": lambda w, x: w.gather(0, torch.zeros(4, 4, dtype=torch.long)),
    "take_along_dim": lambda w, x: torch.take_along_dim(w, torch.tensor([[0, 0, 1]]), 1),
    "repeat": lambda w, x: w.repeat(2, 1),
    "diagonal": lambda w, x: w.diagonal(),
    "addition": lambda w, x: w + x,
    "division": lambda w, x: w / 2.0,
    "negative": lambda w, x: -w,
    "power": lambda w, x: w**2,
    "comparison": lambda w, x: (w > 0).double(),
    "einsum": lambda w, x: torch.einsum("bi,oi->bo", x, w),
    "tensordot": lambda w, x: torch.tensordot(x, w, 1),
    "inner": lambda w, x: torch.inner(x, w),
    "addmm with beta": lambda w, x: torch.addmm(x, x, w, beta=2.0),
    "matmul, keywords": lambda w, x: torch.matmul(input=x, other=w),
    "matmul, a keyword": lambda w, x: torch.matmul(x, other=w),
    "mul, keywords": lambda w, x: torch.mul(input=w, other=x[None]),
    "transpose, all keywords": lambda w, x: torch.transpose(input=w, dim0=0, dim1=1),
    "chain_matmul": lambda w, x: torch.linalg.multi_dot([x, w, x]),
    "bias of addmm": lambda w, x: torch.addmm(w, x, x),
    "bias of linear": lambda w, x: F.linear(x, x, w[0]),
    "input of linear": lambda w, x: F.linear(w, x),
    "linear of itself": lambda w, x: F.linear(w, w),
    "W W": lambda w, x: w @ w,
    "W W^T": lambda w, x: w @ w.T,
    "low rank": lambda w, x: x @ (w[:, :2] @ w[2:]),
    "parameter @ W": lambda w, x: x @ (nn.Parameter(x) @ w),
    "W @ parameter": lambda w, x: x @ (w @ nn.Parameter(x)),
    "linear of a parameter": lambda w, x: x @ F.linear(nn.Parameter(x), w),
    "gains of a parameter": lambda w, x: x @ (nn.Parameter(x) * w[0]),
    "W @ vector": lambda w, x: w @ x[0],
    "mv": lambda w, x: torch.mv(w, x[0]),
    "product of two": lambda w, x: w * w.T,
    "stack": lambda w, x: torch.stack([w, x, w]),
    "cat of views": lambda w, x: torch.cat((w[:1], w[1:])),
    "where": lambda w, x: torch.where(x > 0, w, x),
    "softmax": lambda w, x: F.softmax(w, dim=-1),
    "clamp bounds": lambda w, x: torch.clamp(x, max=w),
    "norm": lambda w, x: torch.linalg.norm(w),
    "weight standardisation": lambda w, x: F.linear(x, (w - w.mean(1, keepdim=True)) / w.var(1, keepdim=True).sqrt()),
    "weight normalisation": lambda w, x: F.linear(x, w * (1 / w.norm(dim=1, keepdim=True))),
    "var": lambda w, x: w.var(),
    "float()": lambda w, x: torch.tensor(float(w[0, 0].detach())),
    "item": lambda w, x: torch.tensor(w[1, 1].item()),
    "tolist": lambda w, x: torch.tensor(w.tolist()),
    "numpy": lambda w, x: torch.from_numpy(w.detach().cpu().numpy()),
    "new_full": lambda w, x: w.new_full((2,), 3.0),
    "data": lambda w, x: w.data + 0,
    "clone": lambda w, x: w.clone(),
    "real": lambda w, x: w.real,
    "H": lambda w, x: w.H,
    "functional_conv": lambda w, x: torch.convolution(
        x[None], w[..., None], None, [1], [0], [1], False, [0], 1
    ),
    "embedding_bag": lambda w, x: F.embedding_bag(torch.tensor([[0, 1]]), w, mode="sum"),
    "layer_norm": lambda w, x: F.layer_norm(x, (4,), weight=w[0], bias=w[1]),
}  # fmt: skip


@pytest.mark.parametrize("name", ANY)
def test_function_without_a_rule_takes_the_one_draw(name):
    function, weight, x = ANY[name], gaussian(4, 4), torch.randn(4, 4)
    output = drawn(function(weight, x))
    assert torch.allclose(output, function(weight.draw(), x), atol=1e-12)
    assert torch.allclose(output, drawn(function(weight, x)), atol=1e-12)
    assert weight.used or name == "transpose, all keywords"


def test_lists_dicts_and_keywords_are_searched():
    """Recurrent layers hide their weights in a list."""
    from torch.overrides import handle_torch_function, has_torch_function

    def hidden(weights):
        flat = [*weights["list"], weights["tuple"][0]]
        if has_torch_function(flat):
            return handle_torch_function(hidden, flat, weights=weights)
        return torch.cat(flat)

    a, b = gaussian(2), gaussian(3)
    output = hidden({"list": [a], "tuple": (b,)})
    assert torch.equal(output, torch.cat([a.draw(), b.draw()]))
    assert a.used
    assert b.used


def test_lstm_reads_every_weight():
    lstm, x = torch.nn.LSTM(3, 2), torch.randn(4, 2, 3)
    weights = {name: gaussian(*p.shape) for name, p in lstm.named_parameters()}
    output = torch.func.functional_call(lstm, weights, (x,))[0]
    expected = torch.func.functional_call(lstm, {name: w.draw() for name, w in weights.items()}, (x,))[0]
    assert torch.allclose(output, expected)
    assert all(weight.used == {"lstm"} for weight in weights.values())


def test_matrix_of_pyro_param_is_no_data():
    """Nor is it under SVI, where a module's parameter is announced as a view."""
    weight, x = gaussian(3, 2), torch.randn(4, 3)
    matrix = pyro.param("matrix", torch.rand(3, 3), constraint=dist.constraints.positive)
    assert torch.equal(x @ (matrix @ weight), x @ (matrix @ weight.draw()))


def test_duplicate_indices_have_the_variance_of_shared_weights():
    x, weight, index = torch.randn(3, 4), gaussian(2, 2), torch.tensor([0, 0, 1, 1])
    mean, variance = exact_moments(lambda w: x @ w[index], [weight])
    assert_moments(torch.stack([x @ fresh(weight)[index] for _ in range(DRAWS)]).detach(), mean, variance)


def test_draw_has_the_moments_of_the_weight():
    weight = gaussian(3, 2)
    draws = torch.stack([fresh(weight).draw() for _ in range(DRAWS)]).detach()
    assert_moments(draws, weight.loc.detach(), weight.variance.detach())


def test_a_weight_once_drawn_is_used_by_its_draw():
    """A norm taken first, then a linear map: both of one draw, as weight sampling has it."""
    x, weight = torch.randn(3, 4), gaussian(2, 4)
    norm = weight.norm()
    assert torch.allclose(F.linear(x, weight) / norm, F.linear(x, weight.draw()) / weight.draw().norm())
    assert torch.equal(x @ weight.T, x @ weight.draw().T)


@pytest.mark.parametrize(
    "change",
    [lambda w: w.data.mul_(0), lambda w: w.mul_(0), lambda w: w.__setitem__(slice(None), 0), lambda w: w.detach().zero_(),
     lambda w: w.T.data.fill_(0), lambda w: setattr(w, "data", torch.zeros(2, 4))],
    ids=["data", "mul_", "setitem", "detach", "view", "set data"],
)  # fmt: skip
def test_change_in_place_is_seen_by_later_uses(change):
    """PixelCNN's masked convolution multiplies ``weight.data`` by its mask before the convolution."""
    weight = gaussian(2, 4)
    with torch.no_grad():
        change(weight)
    assert F.linear(torch.randn(3, 4), weight).eq(0).all()


# --- gradients and ways around the rules -----------------------------------------------------------------------------


def test_weight_first_read_under_no_grad_still_learns():
    weight = gaussian(2, 3)
    with torch.no_grad():
        largest = weight.abs().max()
    (weight / largest).sum().backward()
    assert weight.loc.grad.ne(0).all()
    assert weight.variance.grad.ne(0).all()


def test_detached_view_gives_no_gradient():
    weight = gaussian(2, 3)
    assert not weight.detach().exp().requires_grad
    assert not F.linear(torch.randn(4, 3), fresh(weight).detach()).requires_grad


@pytest.mark.parametrize("function", [F.linear, lambda x, w: x @ w.exp()], ids=["local", "drawn"])
def test_reentrant_checkpoint(function):
    x, weight = torch.randn(4, 3, requires_grad=True), gaussian(3, 3)
    checkpoint(lambda value: function(value, weight), x, use_reentrant=True).square().sum().backward()
    assert weight.loc.grad.abs().min() > 0
    assert weight.variance.grad.abs().min() > 0


class _Sign(torch.autograd.Function):
    @staticmethod
    def forward(ctx, weight):
        return weight.sign()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_autograd_function_that_would_swallow_the_gradient_raises():
    weight = gaussian(2, 3)
    with pytest.raises(RuntimeError, match=r"autograd.Function ends at a Gaussian weight.*'weights'"):
        _Sign.apply(weight).sum().backward()


@pytest.mark.parametrize("function", [lambda x, w: F.linear(x, w), lambda x, w: w.exp(), lambda x, w: torch.cat([w, w])])
def test_dispatcher_refuses_a_weight_that_has_not_been_drawn(function):
    with torch._C.DisableTorchFunctionSubclass(), pytest.raises(RuntimeError, match="without having been drawn"):
        function(torch.randn(2, 3), gaussian(4, 3))


@pytest.mark.parametrize(
    "question",
    [lambda w: w.shape, lambda w: w.size(0), lambda w: w.dim(), lambda w: w.ndim, lambda w: w.numel(), lambda w: len(w),
     lambda w: w.dtype, lambda w: w.device, lambda w: w.requires_grad, lambda w: w.is_floating_point(), lambda w: w.is_cuda,
     lambda w: torch.numel(w), lambda w: torch.is_tensor(w), lambda w: w.stride(), lambda w: w.is_contiguous(),
     lambda w: w.layout, lambda w: w.is_sparse, lambda w: w.grad_fn, lambda w: hash(w), lambda w: repr(w),
     lambda w: w.is_meta, lambda w: isinstance(w, Tensor), lambda w: w is None, lambda w: w.is_complex(),
     lambda w: w.element_size(), lambda w: torch.is_floating_point(w), lambda w: w.is_conj(), lambda w: w.T],
)  # fmt: skip
def test_metadata_is_no_reading(question):
    weight = gaussian(2, 3)
    question(weight)
    assert not weight.used
    assert not weight.is_drawn


def test_metadata_is_that_of_the_mean(device):
    weight = GaussianTensor(torch.randn(2, 3, dtype=torch.float32), torch.rand(2, 3, dtype=torch.float32))
    assert (weight.shape, weight.dtype, weight.device.type) == ((2, 3), torch.float32, device.type)
    assert not weight.requires_grad
    assert gaussian(2).requires_grad
    assert repr(weight) == "GaussianTensor(shape=(2, 3))"


def test_rules_hold_under_vmap():
    x, locs, variances = torch.randn(3, 4), torch.randn(DRAWS, 2, 4), torch.rand(2, 4)
    locs = locs[:1].expand(DRAWS, 2, 4)
    draws = torch.vmap(lambda loc: F.linear(x, GaussianTensor(loc, variances)), randomness="different")(locs)
    assert_moments(draws, F.linear(x, locs[0]), F.linear(x.square(), variances))
