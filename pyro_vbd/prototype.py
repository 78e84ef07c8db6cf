"""Running a model once or twice to look at it, with latents set to chosen values, and leaving no trace of that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer.util import is_validation_enabled
from pyro.poutine.messenger import Messenger
from pyro.poutine.subsample_messenger import _Subsample
from torch import Tensor, nn
from torch.distributions import biject_to
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._pytree import tree_map

from pyro_vbd.distributions import tensors
from pyro_vbd.random_state import forked_random_state
from pyro_vbd.target_checks import held_out_data

__all__ = ["Prototyped", "latent_sites", "observed_sites", "run_with", "sample_sites", "typical_value", "untouched"]


class Prototyped(ABC):
    """A model that can state its latents without data, and broadcasts over draws of them. Abstract."""

    @abstractmethod
    def prototype(self) -> Any:
        """State the latents alone: what a guide needs to know of this model."""


def sample_sites(trace: poutine.Trace) -> dict[str, Any]:
    """The sample sites of a trace in order, without those of plates and of ``pyro.deterministic``."""
    return {
        name: site
        for name, site in trace.nodes.items()
        if site["type"] == "sample"
        and not isinstance(site["fn"], _Subsample)
        and not (site["infer"] or {}).get("_deterministic")
    }


def latent_sites(trace: poutine.Trace) -> dict[str, Any]:
    """Those of :func:`sample_sites` that are not observed."""
    return {name: site for name, site in sample_sites(trace).items() if not site["is_observed"]}


def observed_sites(trace: poutine.Trace) -> dict[str, Any]:
    """Those of :func:`sample_sites` that are; a ``pyro.factor`` is one, with an empty value."""
    return {name: site for name, site in sample_sites(trace).items() if site["is_observed"]}


def typical_value(fn: Any, spread: float = 0.5) -> Tensor:
    """A random value in the middle of a distribution's support, of its shape and dtype.

    The image of N(0, spread^2) noise under the bijection that Pyro knows for the support; a draw where it knows none.
    """
    try:
        transform = biject_to(fn.support)
    except NotImplementedError:  # a discrete support
        return fn.sample()  # type: ignore[no-any-return]
    like = next((value for _, value in tensors(fn)), torch.zeros(()))
    noise = torch.randn(transform.inverse_shape(fn.shape()), dtype=like.dtype, device=like.device)
    return transform(spread * noise)  # type: ignore[no-any-return]


class _Fixed(Messenger):
    """Sets latents to given values, or to typical ones; asked for, as leaves that autograd can lead back to."""

    def __init__(self, values: Mapping[str, Tensor], leaves: dict[str, Tensor] | None) -> None:
        super().__init__()
        self._values, self._leaves = values, leaves

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or isinstance(msg["fn"], _Subsample):
            return
        value = self._values.get(msg["name"])
        if value is None:
            value = typical_value(msg["fn"])
        if self._leaves is not None and value.is_floating_point():
            value = self._leaves[msg["name"]] = value.detach().requires_grad_()
        msg["value"], msg["done"] = value, True


def run_with(
    values: Mapping[str, Tensor],
    model: Callable[..., Any],
    args: Any,
    kwargs: Any,
    leaves: dict[str, Tensor] | None = None,
    *,
    held_out: bool = False,
) -> poutine.Trace:
    """Trace a model with its latents at ``values``, and at typical values where none is given.

    It runs with gradients (in inference mode too), without validation, and unseen by the handlers around it. Where
    ``leaves`` is a dict, each latent is a leaf of the autograd graph and is put into it. Where the arguments are
    ``held_out`` data, their values are checked as in training, but not their number.
    """
    with (
        poutine.block(),
        pyro.validation_enabled(held_out and is_validation_enabled()),
        held_out_data() if held_out else nullcontext(),
        torch.inference_mode(False),  # nor under no_grad
    ):
        values, args, kwargs = tree_map(_known_to_autograd, (dict(values), args, kwargs))
        # trace outside, so that plates have broadcast a site before its value is chosen
        return poutine.trace(_Fixed(values, leaves)(model)).get_trace(*args, **kwargs)


def _known_to_autograd(value: Any) -> Any:
    """A copy of a tensor that was made in inference mode, which no graph takes; anything else as it is."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


@contextmanager
def untouched(model: Any) -> Iterator[None]:
    """Leave the random state, and the buffers of the model and of each module that runs (BatchNorm's), as they were."""
    kept: dict[nn.Module, list[tuple[str, Tensor, Tensor]]] = {}

    def keep(module: nn.Module, _: Any) -> None:
        if module not in kept:  # as it was before its first run
            kept[module] = [(n, b, b.clone()) for n, b in module._buffers.items() if b is not None]

    for module in model.modules() if isinstance(model, nn.Module) else ():
        keep(module, None)
    hook = register_module_forward_pre_hook(keep)  # a model that is a function calls modules that we do not know of
    try:
        # the hook is nothing that torch.compile could take into a graph
        with forked_random_state(), torch.compiler.set_stance("force_eager"):
            yield
    finally:
        hook.remove()
        with torch.no_grad():
            for module, buffers in kept.items():
                for name, buffer, value in buffers:
                    module._buffers[name] = buffer.copy_(value)
