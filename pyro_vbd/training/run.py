"""A run of training as it stands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_vbd.elbo import VBD_ELBO
from pyro_vbd.guide import VBDGuide

__all__ = ["Callback", "Fit", "module_parameters"]


@dataclass
class Fit:
    """A run as it stands: what callbacks see, and what :func:`~pyro_vbd.fit` returns."""

    #: What is trained, in place.
    model: Callable[..., Any]
    #: Its posterior.
    guide: VBDGuide
    #: The objective; while the run lasts its ``kl_weight`` is that of the epoch (``kl_schedule``).
    elbo: VBD_ELBO
    #: All tensors that are trained, by name.
    parameters: dict[str, Tensor] = field(repr=False)
    #: As it stands after the last step; while the run lasts its learning rates are those of the epoch (``lr_schedule``).
    optimizer: Optimizer
    #: One record per epoch: epoch (from 0); loss, log_likelihood and kl (nats per datum; of all data where a model has no
    #: ``num_data``); kl_weight, lr, seconds; validation, where there is any; callbacks add to it.
    history: list[dict[str, Any]] = field(default_factory=list)
    #: Epochs that are done, those of an earlier part of a resumed run included.
    epoch: int = 0
    #: Steps that are done, counted alike.
    step: int = 0
    #: The epoch with the lowest validation loss, from 0, where there is validation.
    best_epoch: int | None = None
    #: What is trained, and the buffers of the model, as they were after ``best_epoch``, by name; empty without validation.
    best: dict[str, Tensor] = field(default_factory=dict, repr=False)
    #: A callback sets it to end the run after this epoch.
    stop: bool = False
    #: Why a member of :func:`~pyro_vbd.fit_members` ended alone: where its loss, or a parameter, was not finite.
    failure: str | None = None


Callback = Callable[[Fit], Any]


def module_parameters(model: Any, guide: nn.Module) -> dict[str, Tensor]:
    """All parameters of a guide and, where it is a module, of its model, by names that are the same in the next process."""
    parts = {label: part for label, part in (("model", model), ("guide", guide)) if isinstance(part, nn.Module)}
    return {f"{label}.{name}": p for label, part in parts.items() for name, p in part.named_parameters()}
