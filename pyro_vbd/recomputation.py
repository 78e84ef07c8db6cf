"""Modules whose weights are lent to them for one run refuse to run anew in backward, as activation checkpointing asks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

__all__ = ["allow_recomputation", "refuse_recomputation"]


def refuse_recomputation(modules: Iterable[nn.Module]) -> None:
    """Let modules raise where they run inside a backward pass, by which time they have their own weights again."""
    for module in modules:
        module.register_forward_pre_hook(_refuse)


def allow_recomputation(net: nn.Module) -> None:
    """Let all modules of a network run as torch's do."""
    for module in net.modules():
        for key in [key for key, hook in module._forward_pre_hooks.items() if hook is _refuse]:
            del module._forward_pre_hooks[key]


def _refuse(module: nn.Module, _: Any) -> None:
    if torch._C._current_graph_task_id() != -1:
        raise RuntimeError(
            f"{type(module).__name__} runs anew during backward(), with other weights than those that were drawn: leave "
            "activation checkpointing (torch.utils.checkpoint) out of a network with priors"
        )
