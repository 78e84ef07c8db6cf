"""A loss whose gradients are known already, for autograd to carry on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["loss_with_gradients"]


def loss_with_gradients(loss: Tensor, gradients: list[Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """A loss that goes backward once, and then gives ``gradients``, times its own, to ``parameters``."""
    return _KnownGradients.apply(loss, gradients, *parameters)  # type: ignore[no-any-return]


class _KnownGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None  # the only reference: the parameters take them without a copy
        if gradients is None:
            raise RuntimeError("a compiled loss goes backward once: call it again for another backward()")
        if grad.is_cuda or grad.item() != 1.0:
            gradients = torch._foreach_mul(gradients, grad)
        return None, None, *gradients
