"""Attention: whole heads go."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from pyro_vbd.compression.operation import Barrier, Operation, register_operation
from pyro_vbd.compression.skeleton import build, sizes
from pyro_vbd.noise.attention import HeadwiseAttention
from pyro_vbd.noise.gate import Gate

__all__ = ["HeadsStep"]


@register_operation(nn.MultiheadAttention, HeadwiseAttention)
class HeadsStep(Barrier):
    """A head goes whose gate is closed, whose part of the output projection is 0, or whose values are constant.

    The attention weights of a token sum to 1, so constant values b give the constant output W b, which goes into the bias.
    """

    cuts_more = True
    module: Any

    @torch.no_grad()
    def replacement(self, kept: Callable[[Operation], Tensor]) -> nn.Module | None:
        headwise = self._headwise()
        if headwise is None:
            return None
        heads, width = headwise.num_heads, headwise.head_dim
        out = headwise.out_proj.weight.detach().double().view(-1, heads, width)
        if isinstance(headwise.gate, Gate):
            out = out * headwise.gate.weight.detach().double()[None, :, None]
        parts = headwise.in_proj_weight.detach().double().view(3, heads, width, -1)
        in_bias = headwise.in_proj_bias
        biases = (
            torch.zeros(3, heads, width).to(out) if in_bias is None else in_bias.detach().double().view(3, heads, width)
        )
        is_constant = (parts[2] == 0).flatten(1).all(1)
        dead = is_constant | (out == 0).all(2).all(0)
        if not bool(dead.any()) and not isinstance(headwise.gate, Gate):
            return None
        if bool(dead.all()):
            dead[0] = False
        alive = ~dead
        bias = torch.einsum("ehd,hd->e", out[:, dead], biases[2, dead])
        if headwise.out_proj.bias is not None:
            bias = bias + headwise.out_proj.bias.double()
        has_bias = in_bias is not None or bool((bias != 0).any())
        described = {**sizes(headwise), "num_heads": int(alive.sum()), "bias": has_bias, "gated": False}
        new: Any = build(described, headwise).to(headwise.in_proj_weight)
        new.in_proj_weight.copy_(parts[:, alive].flatten(0, 2))
        new.out_proj.weight.copy_(out[:, alive].flatten(1))
        if new.in_proj_bias is not None:
            new.in_proj_bias.copy_(biases[:, alive].flatten())
            new.out_proj.bias.copy_(bias)
        return new.train(self.module.training)

    def _headwise(self) -> HeadwiseAttention | None:
        """The module with heads that can go one by one; None where it has to stay as it is."""
        mask = self._argument("attn_mask", 5)
        mask = mask.meta["value"] if isinstance(mask, fx.Node) else mask
        if isinstance(mask, Tensor) and mask.dim() == 3:  # it has a part for each head
            return None
        if isinstance(self.module, HeadwiseAttention):
            return self.module
        if self._argument("need_weights", 4) not in (None, False) or not self._is_only_output_read():
            return None
        try:
            with torch.random.fork_rng(devices=[]):
                return HeadwiseAttention.from_torch(self.module, gated=False)
        except TypeError:
            return None

    def _argument(self, name: str, position: int) -> Any:
        args = self.node.args
        return args[position] if len(args) > position else self.node.kwargs.get(name)

    def _is_only_output_read(self) -> bool:
        """Whether nothing but the first of the two results is; the code may well unpack both."""
        parts = {user: user.args[1:] if user.target is operator.getitem else None for user in self.node.users}
        return {part for user, part in parts.items() if user.users or part is None} == {(0,)}
