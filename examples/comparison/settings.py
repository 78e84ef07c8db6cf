"""The network of each data set, how long it is trained, and what counts as strange to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from data import cifar10_grey
from torch import Tensor, nn

from models import convnet, mlp

__all__ = ["SETTINGS", "Setting"]


@dataclass(frozen=True)
class Setting:
    """Chosen on validation data (``--validate``)."""

    #: Makes the network for a number of classes.
    network: Callable[[int], nn.Module]
    epochs: int
    batch_size: int
    lr: float
    #: Classes on which a second network is not trained: they are the strange data.
    held_out: tuple[int, ...] = ()
    #: Strange data of another origin, from the data directory; None where they are not at hand.
    foreign: Callable[[Path], Tensor | None] = lambda folder: None


def lenet_300_100(classes: int) -> nn.Module:
    return mlp(784, (300, 100), classes)


SETTINGS = {
    "digits": Setting(lambda classes: mlp(64, (100, 100), classes), 100, 50, 3e-3, held_out=(8, 9)),
    "mnist": Setting(lenet_300_100, 40, 100, 1e-3, foreign=cifar10_grey),
    "fashion-mnist": Setting(lenet_300_100, 40, 100, 1e-3, foreign=cifar10_grey),
    "cifar10": Setting(lambda classes: convnet(classes=classes), 40, 100, 1e-3, held_out=(8, 9)),
    "svhn": Setting(lambda classes: convnet(classes=classes), 40, 100, 1e-3, held_out=(8, 9)),
}
