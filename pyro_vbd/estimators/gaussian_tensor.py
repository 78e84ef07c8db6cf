r"""A weight that is still a distribution: a tensor that knows its mean and variance and is sampled where it is used.

Local reparameterisation (Kingma, Salimans and Welling 2015, arXiv:1506.02557): where an output is linear in independent
Gaussian weights, :math:`y_o = \sum_k a_k W_k` is itself Gaussian,

.. math:: y_o \sim N\Big(\sum_k a_k \theta_k, \; \sum_k a_k^2 \sigma_k^2\Big),

eq. (3) of Liu et al. 2019, and is sampled instead of the weights. A rule says so for one function of torch
(:mod:`pyro_vbd.estimators.rules`); a function without a rule gets one draw of the weight, the same at every use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["GaussianTensor", "Rule", "drawn", "is_learned", "sample_output"]

#: ``rule(func, args, kwargs)``: the sampled output, or NotImplemented where the case has no closed form.
Rule = Callable[[Callable[..., Any], Sequence[Any], dict[str, Any]], Any]


class GaussianTensor(Tensor):
    """A tensor of independent Gaussians, of the shape, dtype and device of its mean. It holds no data.

    It takes part in torch's functions through ``__torch_function__``, also from inside lists and keyword arguments; what
    reaches the dispatcher without having been drawn raises.

    Args:
        loc: means.
        variance: variances, of the same shape.
    """

    #: What is done in a function of torch, by function; a subclass has its own.
    rules: ClassVar[Mapping[Any, Rule]]

    loc: Tensor
    variance: Tensor
    used: set[str]

    @staticmethod
    def __new__(cls, loc: Tensor, variance: Tensor, *_: Any) -> GaussianTensor:
        return torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls, loc.shape, dtype=loc.dtype, device=loc.device, requires_grad=loc.requires_grad
        )

    def __init__(
        self,
        loc: Tensor,
        variance: Tensor,
        parent: GaussianTensor | None = None,
        derive: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.loc, self.variance = loc, variance
        self._parent, self._derive = parent, derive
        self._value: Tensor | None = None
        self._deviation: Tensor | None = None
        #: Names of the functions that read it or a tensor derived from it; empty where nothing has.
        self.used = set() if parent is None else parent.used
        if loc.requires_grad:
            with torch._C.DisableTorchFunctionSubclass():
                self.register_hook(_refuse_gradient)  # type: ignore[no-untyped-call]

    def derive(self, linear: Callable[[Tensor], Tensor], linear_in_variance: Callable[[Tensor], Tensor]) -> GaussianTensor:
        """The Gaussian tensor that an elementwise linear map or a view makes of this one; it shares this one's draw."""
        return type(self)(linear(self.loc), linear_in_variance(self.variance), self, linear)

    def draw(self) -> Tensor:
        """One sample of the whole tensor, the same one at every call, shared with every tensor derived from it."""
        if self._value is None:
            with torch.enable_grad():  # the first reader may be under no_grad, a later one not
                if self._parent is None or self._derive is None:
                    deviation = self._deviation
                    self._value = sample_output(self.loc, self.variance) if deviation is None else self.loc + deviation
                else:
                    self._value = self._derive(self._parent.draw())
        return self._value

    def deviation(self) -> Tensor:
        """A sample minus the mean, without the rounding of the difference; the same one at every call."""
        if self._parent is not None and self._derive is not None:
            return self._derive(self._parent.deviation())
        if self._deviation is None:
            with torch.enable_grad():
                self._deviation = sample_output(torch.zeros_like(self.loc), self.variance)
        return self._deviation

    @property
    def is_drawn(self) -> bool:
        """Whether it, or the tensor that it is derived from, has been read by its draw."""
        return self._value is not None or (self._parent is not None and self._parent.is_drawn)

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"GaussianTensor(shape={tuple(self.loc.shape)})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in _METADATA:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        output = NotImplemented
        gaussians = _gaussians(args, kwargs)
        rule = cls.rules.get(func)
        # noise of its own beside a draw that has been read (a norm of the weight, a mask set in place) would not fit it
        if rule is not None and not any(leaf.is_drawn for leaf in gaussians):
            output = rule(func, args, kwargs)
        if not isinstance(output[0] if isinstance(output, tuple) and output else output, GaussianTensor):
            for leaf in gaussians:  # a view is no use yet
                leaf.used.add(getattr(func, "__name__", str(func)))
        if output is NotImplemented:
            args, kwargs = tree_map(drawn, (args, kwargs))
            output = func(*args, **kwargs)
        return output

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        raise RuntimeError(f"a Gaussian weight reached {func} without having been drawn: pass it through a torch function")


def _gaussians(args: Sequence[Any], kwargs: dict[str, Any]) -> list[GaussianTensor]:
    """The Gaussian tensors of a call, those in lists, tuples and dicts included."""
    leaves: list[Any] = [*args, *kwargs.values()]
    if any(isinstance(leaf, list | tuple | dict) for leaf in leaves):
        leaves = tree_leaves(leaves)
    return [leaf for leaf in leaves if isinstance(leaf, GaussianTensor)]


def _refuse_gradient(_: Tensor) -> None:
    # an autograd.Function runs past __torch_function__: its gradient would end here, and never reach the mean
    raise RuntimeError(
        "a gradient of a torch.autograd.Function ends at a Gaussian weight: use estimator={site: 'weights'} for that weight"
    )


def drawn(value: Any) -> Any:
    """The draw of a Gaussian tensor; anything else as it is."""
    return value.draw() if isinstance(value, GaussianTensor) else value


def is_learned(value: Any) -> bool:
    """Whether it is a weight or a parameter, and so no data: all its rows have to meet the same draw of this weight."""
    return isinstance(value, GaussianTensor | nn.Parameter) or hasattr(value, "unconstrained")  # of pyro.param


def sample_output(mean: Tensor, variance: Tensor) -> Tensor:
    """One draw of N(mean, variance), elementwise, with a finite gradient where the variance is 0 (black pixels)."""
    # the root of float16's smallest normal number is no small noise; that of its smallest number is below its rounding
    least = 2.0**-24 if variance.dtype == torch.float16 else torch.finfo(variance.dtype).tiny
    deviation = variance.clamp_min(least).sqrt()
    # in the order of its indices: where channels lie last in memory, a CPU takes eight times as long to draw it
    return torch.addcmul(mean, deviation, torch.randn_like(mean, memory_format=torch.contiguous_format))


# Questions about the tensor that leave it unread.
_METADATA = {
    *(getattr(Tensor, name) for name in ("size", "dim", "numel", "nelement", "ndimension", "stride", "is_floating_point",
      "is_complex", "is_conj", "is_neg", "is_signed", "is_inference", "is_contiguous", "get_device", "element_size",
      "__len__", "__hash__", "data_ptr")),
    *(getattr(Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "layout", "requires_grad", "is_cuda",
      "is_cpu", "is_meta", "is_sparse", "is_quantized", "is_leaf", "grad_fn", "is_nested", "is_mkldnn", "is_mps",
      "itemsize", "nbytes")),
    torch.numel, torch.is_floating_point, torch.is_complex,
}  # fmt: skip
