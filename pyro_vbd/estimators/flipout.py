r"""Flipout: one draw of a weight for the batch, with signs of its own for each datum.

Wen, Vicol, Ba, Tran and Grosse 2018 (arXiv:1803.04386), eq. (4): with :math:`W = \theta + \Delta` and random signs
:math:`s_n, r_n` of the inputs and outputs of datum n,

.. math:: y_n = \theta x_n + r_n \circ \big(\Delta (x_n \circ s_n)\big).

Each datum meets a weight from q, since q is symmetric around its mean; two data meet weights that are uncorrelated. As in
weight sampling a datum that meets a weight more than once (a convolution, tokens) meets the same one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pyro_vbd.estimators.gaussian_tensor import GaussianTensor, Rule, drawn, is_learned
from pyro_vbd.estimators.rules import CONVOLUTIONS

__all__ = ["FlipoutTensor"]


class FlipoutTensor(GaussianTensor):
    """A :class:`~pyro_vbd.estimators.gaussian_tensor.GaussianTensor` that linear layers and convolutions sample by flipout.

    Other linear maps of data (an embedding, a product) sample their outputs, as its base class does.
    """


def _flipped(feature_dim: int, min_dim: int) -> Rule:
    """Rule of a layer ``func(input, weight, bias, ...)``.

    Args:
        feature_dim: where the features of inputs and outputs stand.
        min_dim: dimensions of an input with a batch in front.
    """

    def rule(func: Callable[..., Any], args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        named = {**dict(zip(("input", "weight", "bias"), args, strict=False)), **kwargs}
        values, weight, bias, rest = named.pop("input"), named.pop("weight"), named.pop("bias", None), args[3:]
        if not isinstance(weight, FlipoutTensor) or is_learned(values) or values.dim() < min_dim:
            return NotImplemented
        with_signs = isinstance(bias, FlipoutTensor)
        mean = func(values, weight.loc, bias.loc if with_signs else drawn(bias), *rest, **named)
        signed, shift = values * _signs(values, feature_dim), bias.deviation() if with_signs else None
        moved = func(signed, weight.deviation(), shift, *rest, **named)
        return torch.addcmul(mean, moved, _signs(mean, feature_dim).expand_as(mean))

    return rule


def _signs(like: Tensor, feature_dim: int) -> Tensor:
    """-1 or 1 for each datum and feature, to be broadcast over the rest."""
    shape = [size if dim in (0, feature_dim % like.dim()) else 1 for dim, size in enumerate(like.shape)]
    return torch.randint(0, 2, shape, device=like.device).to(like.dtype).mul_(2).sub_(1)


FlipoutTensor.rules = {
    **GaussianTensor.rules,
    F.linear: _flipped(-1, 2),
    **{function: _flipped(1, min_dim) for function, min_dim in CONVOLUTIONS.items()},
}
