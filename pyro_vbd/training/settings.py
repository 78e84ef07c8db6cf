"""What decides the objective of a run besides the values of its tensors, in words that a checkpoint can hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import singledispatch
from numbers import Real
from types import FunctionType
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from pyro_vbd.distributions import tensors
from pyro_vbd.likelihoods import GaussianLikelihood
from pyro_vbd.network import StochasticNetwork
from pyro_vbd.priors.hyperparameter import Learned
from pyro_vbd.priors.prior import HierarchicalPrior, Prior
from pyro_vbd.training.run import Fit

__all__ = ["differing_setting", "run_settings"]

#: Attributes of a model that decide its likelihood, and settings of an optimizer that decide which tensors it keeps.
_OF_MODEL, _OF_OPTIMIZER = ("num_data", "multilabel", "ignore_index"), ("amsgrad", "centered")


def run_settings(run: Fit) -> dict[str, str]:
    """Settings that have to be the same for a run to go on, by name.

    They are the kind of the model, its size of the data set, the prior of each weight of a lifted network in it, the noise
    of a Gaussian likelihood, the guide's ``alpha`` and ``scale_posterior``, and the kind of the optimizer with what decides
    which tensors it keeps. Priors of a model that is a plain function cannot be seen.
    """
    found = {"the model": type(run.model).__name__}
    found.update({name: _described(getattr(run.model, name)) for name in _OF_MODEL if hasattr(run.model, name)})
    for module in run.model.modules() if isinstance(run.model, nn.Module) else ():
        if isinstance(module, StochasticNetwork):
            found.update({f"the prior of {module.site(n)!r}": _described(prior) for n, prior in module.priors.items()})
        elif isinstance(module, GaussianLikelihood):
            found["the noise"] = _described(module.log_scale if module.log_scale.requires_grad else module.scale)
    found.update({f"the guide's {name}": _described(getattr(run.guide, name)) for name in ("alpha", "scale_posterior")})
    found["the optimizer"] = type(run.optimizer).__name__
    defaults = run.optimizer.defaults
    found.update({f"the optimizer's {name}": _described(defaults[name]) for name in _OF_OPTIMIZER if name in defaults})
    return found


def differing_setting(theirs: Mapping[str, str], ours: Mapping[str, str]) -> str | None:
    """The first setting that both have and that differs, and how; None where there is none.

    A setting that only one has comes with parameters that only one has, which are compared by themselves.
    """
    for name in theirs:
        if name in ours and theirs[name] != ours[name]:
            return f"{name} is {theirs[name]} there and {ours[name]} here"
    return None


# --- values in words, which are the same in the next process and as training goes on -----------------------------------


@singledispatch
def _described(value: Any) -> str:
    return type(value).__name__  # its repr may hold an address


@_described.register(str)
@_described.register(bool)
@_described.register(type(None))
def _(value: Any) -> str:
    return repr(value)


@_described.register
def _(value: Real) -> str:
    return repr(float(value)).removesuffix(".0")  # 1 is 1.0


@_described.register
def _(value: FunctionType) -> str:
    return value.__qualname__


@_described.register
def _(value: Tensor) -> str:
    return "learned" if value.requires_grad else str(value.tolist())


@_described.register
def _(value: Learned) -> str:
    return "Learned"  # where it starts is of no more interest


@_described.register
def _(value: Distribution) -> str:
    return _call(value, tensors(value))  # torch's repr leaves out those of a distribution inside


@_described.register(list)
@_described.register(tuple)
def _(value: Any) -> str:
    return f"[{', '.join(map(_described, value))}]"


@_described.register
def _(value: Mapping) -> str:  # type: ignore[type-arg]
    return f"{{{', '.join(f'{key}: {_described(part)}' for key, part in value.items())}}}"


@_described.register
def _(value: Prior) -> str:
    return _call(value, ((name, part) for name, part in vars(value).items() if not name.startswith("_")))


@_described.register
def _(value: HierarchicalPrior) -> str:
    return _call(value, value.arguments().items())


def _call(value: Any, arguments: Iterable[tuple[str, Any]]) -> str:
    return f"{type(value).__name__}({', '.join(f'{name}={_described(argument)}' for name, argument in arguments)})"
