r"""What torch's functions do with Gaussian weights: sample their outputs where these are Gaussian in closed form.

Outputs are linear in the weight here (eq. (3) of Liu et al. 2019), or the weight in another shape, order or unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_vbd.estimators.gaussian_tensor import GaussianTensor, Rule, drawn, is_learned, sample_output

__all__ = ["CONVOLUTIONS"]  # imported above all for the rules that it gives GaussianTensor

#: torch's functions that meet a weight at many places of one datum, with the dimensions of an input with a batch in front.
CONVOLUTIONS = {
    F.conv1d: 3, F.conv2d: 4, F.conv3d: 5, F.conv_transpose1d: 3, F.conv_transpose2d: 4, F.conv_transpose3d: 5
}  # fmt: skip


def linear_in_weight(*signature: str) -> Rule:
    """Rule of a function whose every output is a sum of inputs times distinct weights, plus a bias.

    Args:
        signature: names of the function's leading arguments in order; ``"weight"`` and ``"bias"`` are those that may be
            Gaussian, ``"input..."`` those that are squared in the variance. The rest is passed on as it is.

    Shapes are the function's own: of an input ``(B, ..., in)`` and a weight ``(out, in)``, ``F.linear`` makes the mean and
    the variance of outputs ``(B, ..., out)``, each with noise of its own.
    """

    def rule(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        named = {**dict(zip(signature, args, strict=False)), **kwargs}
        rest = args[len(signature) :]
        weight, bias = named.get("weight"), named.get("bias")
        inputs = [name for name in named if name.startswith("input")]
        if not isinstance(weight, GaussianTensor) or any(is_learned(named[name]) for name in inputs):
            return NotImplemented
        means, variances = dict(named), dict(named)
        for name in inputs:
            variances[name] = named[name].square()
        means["weight"], variances["weight"] = weight.loc, weight.variance
        if isinstance(bias, GaussianTensor):
            means["bias"], variances["bias"] = bias.loc, bias.variance
        elif bias is not None:
            variances["bias"] = None  # a deterministic bias has no variance
        ordered = [name for name in signature if name in named]
        extra = [name for name in named if name not in signature]
        return sample_output(*(
            func(*(values[name] for name in ordered), *rest, **{name: values[name] for name in extra})
            for values in (means, variances)
        ))  # fmt: skip

    return rule


def _matmul(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if kwargs or not any(isinstance(factor, GaussianTensor) for factor in args) or all(map(is_learned, args)):
        return NotImplemented
    left, right = args
    if isinstance(right, GaussianTensor):
        return sample_output(func(left, right.loc), func(left.square(), right.variance))
    if right.dim() == 1:
        return NotImplemented  # a vector carries no batch: the power iteration of a spectral norm
    return sample_output(func(left.loc, right), func(left.variance, right.square()))


def _addmm(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    product = _matmul(torch.mm, args[1:], kwargs)
    return product if product is NotImplemented else drawn(args[0]) + product


def _reversed_matmul(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    return _matmul(torch.matmul, args[::-1], kwargs)


def _embedding(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    names = ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse")
    named = {**dict(zip(names, args, strict=False)), **kwargs}
    weight = named["weight"]
    if named.get("max_norm") is not None or isinstance(named["input"], GaussianTensor):
        return NotImplemented  # renormalises the weight in place
    named["sparse"] = False  # a sparse gradient cannot be carried on to log_var
    return sample_output(func(**{**named, "weight": weight.loc}), func(**{**named, "weight": weight.variance}))


def _product(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if kwargs or sum(isinstance(factor, GaussianTensor) for factor in args) != 1:
        return NotImplemented
    weight, factor = args if isinstance(args[0], GaussianTensor) else args[::-1]
    if isinstance(factor, complex) or (isinstance(factor, Tensor) and factor.is_complex()):
        return NotImplemented
    if isinstance(factor, Tensor) and not factor.is_floating_point():
        factor = factor.to(weight.loc.dtype)  # the square of an image in bytes is none
    square = factor * factor
    shape = torch.broadcast_shapes(weight.loc.shape, getattr(factor, "shape", ()))
    if shape == weight.loc.shape:  # the same weights in other units: still one draw
        return weight.derive(lambda value: value * factor, lambda var: var * square)
    if is_learned(factor) or (weight.loc.dim() == len(shape) and weight.loc.shape[0] == shape[0]):
        return NotImplemented  # no batch in front of the weight: it is met again inside one datum
    return sample_output(weight.loc * factor, weight.variance * square)


def _view(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if not args or not isinstance(args[0], GaussianTensor):
        return NotImplemented
    weight, *rest = args

    def view(value: Tensor) -> Tensor:
        return func(value, *rest, **kwargs)  # type: ignore[no-any-return]

    return weight.derive(view, view)


def _cast(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    cast = _view(func, args, kwargs)
    # a complex number is drawn: its square is no variance
    return cast if cast is NotImplemented or cast.loc.is_floating_point() else NotImplemented


def _views(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    if not args or not isinstance(args[0], GaussianTensor):
        return NotImplemented
    weight, *rest = args
    count = len(func(weight.loc, *rest, **kwargs))
    return tuple(
        weight.derive(*(2 * (lambda value, part=part: func(value, *rest, **kwargs)[part],)))  # type: ignore[misc]
        for part in range(count)
    )


def _item(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    index = args[1] if isinstance(args[1], tuple) else (args[1],)
    # a list or a tensor of indices may name a weight twice
    basic = all(part is None or part is Ellipsis or isinstance(part, int | slice) for part in index)
    return _view(func, args, kwargs) if basic else NotImplemented


_LAYER = linear_in_weight("input", "weight", "bias")

GaussianTensor.rules = {
    **dict.fromkeys((F.linear, *CONVOLUTIONS), _LAYER),
    F.bilinear: linear_in_weight("input1", "input2", "weight", "bias"),
    F.embedding: _embedding,
    torch.addmm: _addmm,
    Tensor.addmm: _addmm,
    Tensor.__rmatmul__: _reversed_matmul,
    Tensor.__getitem__: _item,
    **dict.fromkeys(
        (torch.matmul, torch.mm, torch.mv, torch.bmm, Tensor.matmul, Tensor.mm, Tensor.mv, Tensor.bmm, Tensor.__matmul__),
        _matmul,
    ),
    **dict.fromkeys((torch.mul, torch.multiply, Tensor.mul, Tensor.multiply, Tensor.__mul__, Tensor.__rmul__), _product),
    **dict.fromkeys(
        (getattr(owner, name) for owner in (torch, Tensor) for name in ("chunk", "split", "unbind", "tensor_split")), _views
    ),
    **dict.fromkeys(
        (
            getattr(owner, name)
            for owner in (torch, Tensor)
            for name in ("t", "transpose", "permute", "reshape", "flatten", "squeeze", "unsqueeze", "movedim", "swapaxes",
                         "narrow", "select", "detach", "unflatten")
        ),
        _view,
    ),
    **dict.fromkeys((Tensor.view, Tensor.contiguous, Tensor.float, Tensor.double), _view),
    Tensor.to: _cast,
    **dict.fromkeys((Tensor.T.__get__, Tensor.mT.__get__), _view),  # type: ignore[attr-defined]
}  # fmt: skip
