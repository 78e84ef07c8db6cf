"""What a family may have for a hyperparameter: a number, a number to be learned, or a distribution of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
from torch import Tensor
from torch.distributions import Distribution, constraints

from pyro_vbd.distributions import is_positive, map_tensors

__all__ = ["Hyperparameter", "Learned", "check_hyperparameter", "check_number", "is_number", "state_hyperparameter"]


@dataclass(frozen=True)
class Learned:
    """A positive hyperparameter that is learned with the weights: a parameter of the network that is lifted.

    Where a prior is stated without one, by its ``sample``, it is a ``pyro.param``.

    Args:
        init: where it starts.

    Warning:
        With a delta q(gamma) the objective is a joint maximum over the scales and their hyperparameter, and may have none:
        the weights that are removed pull it to 0. Give the scales a density, ``VBDGuide(scale_posterior="lognormal")``.
    """

    init: float

    def __repr__(self) -> str:
        return f"Learned({self.init!r})"


Hyperparameter = float | Learned | dist.TorchDistribution


def is_number(value: Any) -> bool:
    """Whether a value is a finite number: not a truth value, not a tensor."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_number(family: str, name: str, value: Any) -> None:
    """Refuse what is no positive number.

    Raises:
        ValueError: naming the family, the argument and its value.
    """
    if not (is_number(value) and value > 0):
        raise ValueError(f"{family}({name}={value!r}) is out of range: use a positive finite number")


def check_hyperparameter(family: str, name: str, value: Any) -> None:
    """Refuse what is no positive number, no :class:`Learned` positive number and no distribution of one.

    Raises:
        ValueError: naming the family, the hyperparameter and its value.
    """
    if isinstance(value, Distribution):
        if value.batch_shape or not is_positive(value):
            raise ValueError(f"{family}({name}={value}) is no distribution of one positive number: use dist.Gamma, say")
        return
    number = value.init if isinstance(value, Learned) else value
    if not (is_number(number) and number > 0):
        raise ValueError(
            f"{family}({name}={value!r}) is out of range: use a positive finite number, a distribution of one, or "
            "Learned(number)"
        )


def state_hyperparameter(site: str, value: Hyperparameter, like: Tensor) -> Tensor:
    """The value of a hyperparameter, of shape ``()``, in the dtype and on the device of ``like``, stated in Pyro.

    A number is a constant, a :class:`Learned` one the ``pyro.param`` and a distribution the ``pyro.sample`` of that name.
    """
    if isinstance(value, Learned):
        number = pyro.param(site, lambda: like.new_full((), value.init), constraint=constraints.positive)
        # Pyro keeps it where it was made
        return number.to(like)  # type: ignore[no-any-return]
    if isinstance(value, Distribution):
        return pyro.sample(site, map_tensors(value, lambda part: part.to(like)))  # type: ignore[arg-type,no-any-return]
    return like.new_full((), value)
