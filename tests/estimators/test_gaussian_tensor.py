"""A Gaussian tensor where no rule applies: one draw, the same at every use; and what it refuses."""

from collections.abc import Callable

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pyro_vbd.estimators.gaussian_tensor import GaussianTensor, drawn, sample_output
from tests.estimators.moments import DRAWS, assert_moments, exact_moments, fresh, gaussian

pytestmark = pytest.mark.usefixtures("float64")


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


def test_a_view_from_before_the_draw_is_used_by_it_too():
    x, weight = torch.randn(3, 4), gaussian(2, 4)
    view = weight.T
    weight.norm()
    assert view.is_drawn
    assert torch.equal(x @ view, x @ weight.draw().T)


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("variance", [0.0, 1e-6])
def test_small_variances_are_small_in_half_precision(variance, dtype, device):
    """The root of the smallest normal number is 0.008 in float16; the rounding beside a mean of 1 is 0.001."""
    of_all = torch.full((20_000,), variance, dtype=dtype, device=device, requires_grad=True)
    draw = sample_output(torch.zeros_like(of_all), of_all)
    draw.sum().backward()
    assert draw.float().std().item() == pytest.approx(variance**0.5, abs=3e-4)
    assert of_all.grad.isfinite().all()


def test_noise_does_not_depend_on_how_the_mean_lies_in_memory(device):
    """A seed's noise is the same where channels lie last; torch's own order there takes eight times as long to draw."""
    mean = torch.zeros(2, 3, 4, 5, device=device)
    draws = []
    for layout in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        draws.append(sample_output(mean.to(memory_format=layout), torch.ones_like(mean)))
    assert torch.equal(*draws)


def test_metadata_is_that_of_the_mean(device):
    weight = GaussianTensor(torch.randn(2, 3, dtype=torch.float32), torch.rand(2, 3, dtype=torch.float32))
    assert (weight.shape, weight.dtype, weight.device.type) == ((2, 3), torch.float32, device.type)
    assert not weight.requires_grad
    assert gaussian(2).requires_grad
    assert repr(weight) == "GaussianTensor(shape=(2, 3))"
