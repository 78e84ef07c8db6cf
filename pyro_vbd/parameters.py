"""nn.Parameters that Pyro's SVI sees without the global parameter store, under either setting of module_local_params."""

from __future__ import annotations

import itertools
import weakref
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyro
from pyro.poutine.messenger import Messenger
from pyro.poutine.replay_messenger import ReplayMessenger
from pyro.poutine.runtime import _PYRO_STACK, effectful
from pyro.poutine.trace_messenger import TraceMessenger
from torch import Tensor, nn
from torch.distributions import constraints

__all__ = [
    "LocalParameters",
    "OwnedParameters",
    "SampleTrace",
    "announce",
    "announced",
    "captured_parameters",
    "module_key",
    "unique_label",
]

_numbers: defaultdict[str, Iterator[int]] = defaultdict(itertools.count)


def unique_label(kind: str) -> str:
    """``kind``, then ``kind_1``, ``kind_2``...: a prefix of parameter names that no other object of the process has."""
    number = next(_numbers[kind])
    return f"{kind}_{number}" if number else kind


def module_key(site: str) -> str:
    """A site's name without dots, which torch allows in no name of a parameter or submodule; one for each site."""
    return site.replace("~", "~0").replace("/", "~1").replace(".", "/")


def announce(name: str, parameter: Tensor) -> Tensor:
    """Pass a parameter through the handlers of ``pyro.param``, and return what they make of it.

    ``pyro.param`` keeps one value per name in a process-wide store, so that two models share by name what they do not
    mean to share. An announced parameter stays with its module; SVI optimises it all the same.

    Args:
        name: unique in the process, for optimizer arguments by name and ``PyroOptim.get_state``.
        parameter: a leaf tensor, of any shape.
    """
    if not _is_heard():
        return parameter
    _name_for_svi(name, parameter)
    value = _view(parameter)
    return effectful(type="param")(lambda *_, **__: value)(name, constraint=constraints.real, name=name)


def _is_heard() -> bool:
    return not all(_is_deaf(frame) for frame in _PYRO_STACK)


def _is_deaf(frame: Messenger) -> bool:
    """Whether a handler does nothing at a parameter: then there is no need to tell it of one, which takes its time."""
    if isinstance(frame, SampleTrace):
        return True
    if isinstance(frame, ReplayMessenger):
        return frame.params is None
    listens = hasattr(frame, "_pyro_param") or hasattr(frame, "_pyro_post_param")
    return not listens and type(frame)._process_message is Messenger._process_message


def announced(label: str, module: nn.Module) -> dict[str, Tensor]:
    """Announce the trainable parameters of a module: by their names in it, or nothing where no handler listens."""
    if not _is_heard():
        return {}
    return {n: announce(f"{label}.{n}", p) for n, p in module.named_parameters() if p.requires_grad}


def _view(parameter: Tensor) -> Tensor:
    """An alias that leads back to its leaf, as Pyro's optimizers ask of the value of a parameter site."""
    value: Any = parameter.view_as(parameter)
    value.unconstrained = weakref.ref(parameter)
    return value


def _name_for_svi(name: str, parameter: Tensor) -> None:
    # PyroOptim looks names up in the store's map; only under SVI, since the map keeps its keys alive
    if any(isinstance(frame, TraceMessenger) and frame.param_only and type(frame) is not _Capture for frame in _PYRO_STACK):
        getattr(pyro.get_param_store(), "_param_to_name", {}).setdefault(parameter, name)


class SampleTrace(TraceMessenger):
    """A trace without parameters, which would take time at every step."""

    def _pyro_post_param(self, msg: Any) -> None:
        pass


class LocalParameters(Messenger):
    """Makes the plain nn.Parameters of a PyroModule visible to SVI under ``module_local_params=True``.

    There a PyroModule states a bare parameter without the link to its leaf that ``SVI.step`` asks for.
    """

    def _pyro_param(self, msg: Any) -> None:
        bare = msg["args"][1] if len(msg["args"]) > 1 else None
        if pyro.settings.get("module_local_params") and isinstance(bare, nn.Parameter):
            _name_for_svi(msg["name"], bare)
            msg["value"], msg["done"] = _view(bare), True


class OwnedParameters(Messenger):
    """Answers ``pyro.param`` statements with values that a module has of its own, so that no store keeps them.

    Args:
        values: by name. They have been announced already, so handlers further out are not told again.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._values = values

    def _pyro_param(self, msg: Any) -> None:
        if msg["name"] in self._values:
            msg["value"] = self._values[msg["name"]]
            msg["done"] = msg["stop"] = True


class _Capture(TraceMessenger):
    """A trace of parameters that is not SVI's."""

    def __init__(self) -> None:
        super().__init__(param_only=True)


@contextmanager
def captured_parameters() -> Iterator[dict[str, Tensor]]:
    """Collect, by name, the leaf of every parameter site that runs inside the context."""
    found: dict[str, Tensor] = {}
    with _Capture() as capture:
        yield found
    for name, site in capture.trace.nodes.items():
        if site["type"] == "param":
            value: Any = site["value"]
            found[name] = value.unconstrained() if hasattr(value, "unconstrained") else value
