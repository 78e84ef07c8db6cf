"""Which parameters of a network get a prior: by default its weights, else by name pattern, module type or predicate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeAlias

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from pyro_vbd.noise.gate import Gate
from pyro_vbd.priors.prior import Prior

__all__ = ["Where", "is_weight", "select"]

Predicate: TypeAlias = Callable[[str, nn.Parameter, nn.Module], bool]
#: A pattern or several, a module type or several, or ``predicate(name, parameter, owner)``; None is the default rule.
Where: TypeAlias = str | Sequence[str] | type[nn.Module] | tuple[type[nn.Module], ...] | Predicate | None

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
# torch.nn's modules without weights of their own: what stands in them is raw
_NO_LAYERS = ("torch.nn.modules.module", "torch.nn.modules.container")


def is_weight(name: str, parameter: nn.Parameter, owner: nn.Module) -> bool:
    """The default rule: weights of torch.nn layers and of gates, and raw parameters with two dimensions larger than 1.

    Not biases, norms, class tokens, layer scales, or positional embeddings that stand raw in a module (of size 1 where the
    batch is, or of a name that begins with ``pos``): what is added to data is no weight of theirs. Of a weight under
    ``weight_norm`` the direction is meant, not its length.
    """
    last = name.rpartition(".")[2]
    if not parameter.is_floating_point() or isinstance(owner, _NORMS) or "bias" in last:
        return False
    if isinstance(owner, Gate):
        return True
    if isinstance(owner, ParametrizationList):
        return parameter.dim() > 1 and parameter is _largest(owner)
    if _is_layer(owner):
        return parameter.dim() > 1
    return sum(size > 1 for size in parameter.shape) > 1 and parameter.size(0) > 1 and not last.startswith("pos")


def _largest(originals: ParametrizationList) -> nn.Parameter:
    """Of what a parametrized weight is made of, that with most elements; the last of several (behind a length of 1)."""
    return max(reversed(list(originals.parameters(recurse=False))), key=nn.Parameter.numel)


def _is_layer(module: nn.Module) -> bool:
    """Whether it is a layer of torch.nn, or of a class derived from one."""
    origins = {base.__module__ for base in type(module).__mro__} - {*_NO_LAYERS}
    return any(origin.startswith("torch.nn.modules.") for origin in origins)


def select(net: nn.Module, prior: Prior | Mapping[str, Prior], where: Where = None) -> dict[str, Prior]:
    """The prior of each selected parameter, by its name in ``net.named_parameters()``.

    Args:
        net: any module.
        prior: one prior, or a dict of patterns to priors of which the first that matches counts; a weight that none
            matches has no prior, and is trained as it is.
        where: a pattern, or several, of names of parameters, or of modules (all their weights); a module type, or a tuple
            of them (all their weights); a predicate; or None, the rule of :func:`~pyro_vbd.selection.is_weight` for what is
            not frozen (``requires_grad``).

    Raises:
        TypeError: if ``prior`` is no prior or ``where`` no selection.
        ValueError: if nothing is selected, a pattern of ``prior`` matches nothing, a selected tensor holds integers or
            numbers of half precision, a lazy module has not run yet, or there is TorchScript.
    """
    priors = dict(prior) if isinstance(prior, Mapping) else {"*": prior}
    for pattern, value in priors.items():
        if not isinstance(value, Prior):
            raise TypeError(
                f"prior={value!r} (for {pattern!r}) is no prior: use one of vbd.priors, such as GaussianUniform()"
            )
    chosen = _predicate(where)
    if any(isinstance(module, torch.jit.ScriptModule) for module in net.modules()):
        raise ValueError(f"{type(net).__name__} holds TorchScript, which keeps its weights: pass the module it was made of")
    if lazy := [name for name, parameter, _ in _owned(net) if is_lazy(parameter)]:
        raise ValueError(f"{lazy} have no shape yet: run the network once on example inputs, since they are lazy")
    selected: dict[str, Prior] = {}
    unused = set(priors)
    for name, parameter, owner in _owned(net):
        if not chosen(name, parameter, owner):
            continue
        match = next((pattern for pattern in priors if _matches(name, pattern)), None)
        if match is None:
            continue
        if not parameter.is_floating_point():
            raise ValueError(f"{name!r} holds {parameter.dtype}, which has no Gaussian prior: leave it out by where=")
        if parameter.dtype.itemsize < 4:
            raise ValueError(
                f"{name!r} holds {parameter.dtype}, to which a step of training rounds away: use net.float(), and train "
                "under torch.autocast for the speed"
            )
        selected[name] = priors[match]
        unused.discard(match)
    if not selected:
        names = [name for name, _, _ in _owned(net)]
        raise ValueError(
            f"where={where!r} selects no weight of {type(net).__name__}{_spared(where)}: its parameters are {names}"
        )
    if unused:
        raise ValueError(
            f"the prior for {sorted(unused)} matches no selected weight of {sorted(selected)}{_spared(where)}: mend the "
            "pattern"
        )
    idle = [pattern for pattern in _patterns(where) if not any(_matches(name, pattern) for name in selected)]
    if idle:
        raise ValueError(f"where={idle} matches no weight of {type(net).__name__}: mend the pattern, or leave it out")
    return selected


def _spared(where: Where) -> str:
    return " (frozen ones are left out unless where= selects them)" if where is None else ""


def _patterns(where: Where) -> tuple[str, ...]:
    if isinstance(where, str):
        return (where,)
    if isinstance(where, Sequence) and all(isinstance(part, str) for part in where):
        return tuple(str(part) for part in where)
    return ()


def _owned(net: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module]]:
    for name, parameter in net.named_parameters():
        yield name, parameter, net.get_submodule(name.rpartition(".")[0])


def _matches(name: str, pattern: str) -> bool:
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[0], pattern)


def _predicate(where: Where) -> Predicate:
    if where is None:
        return lambda name, parameter, owner: parameter.requires_grad and is_weight(name, parameter, owner)
    if patterns := _patterns(where):
        # a full name means whatever stands under it, a wildcard or a module's name the weights that it covers
        return lambda name, parameter, owner: (
            name in patterns or (any(_matches(name, pattern) for pattern in patterns) and is_weight(name, parameter, owner))
        )
    types = where if isinstance(where, tuple) else (where,)
    if types and all(isinstance(part, type) and issubclass(part, nn.Module) for part in types):
        return lambda name, parameter, owner: isinstance(owner, types) and is_weight(name, parameter, owner)  # type: ignore[arg-type]
    if callable(where) and not isinstance(where, type):
        return where
    raise TypeError(f"where={where!r} is no selection: use a pattern, a module type, several of one, or a predicate")
