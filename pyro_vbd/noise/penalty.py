"""What noise with learned rates adds to the loss: a KL divergence in nats, summed over a network."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["Penalised", "penalty"]


class Penalised(nn.Module, ABC):
    """A module whose noise is learned, and held by a KL. Abstract."""

    @abstractmethod
    def penalty(self) -> Tensor:
        """The KL divergence of this module's noise from its prior, up to a constant: a scalar in nats."""


def penalty(net: nn.Module) -> Tensor:
    r"""The sum of the penalties of all :class:`Penalised` modules in a network, in nats over the whole data set.

    The loss of N data in batches is ``F.cross_entropy(net(x), y) + penalty(net) / N``, in nats per datum: the bound of
    :class:`~pyro_vbd.VBD_ELBO` divided by N.

    Raises:
        ValueError: if the network has no such module.
    """
    parts = [module.penalty() for module in net.modules() if isinstance(module, Penalised)]
    if not parts:
        raise ValueError(f"{type(net).__name__} has no noise that is learned: put a ConcreteDropout or a gate into it")
    return torch.stack(parts).sum()
