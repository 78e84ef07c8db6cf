"""The networks that are made smaller, and how each is trained."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from models import lenet_5_caffe, lenet_300_100, mlp, resnet

__all__ = ["SETTINGS", "Setting"]


@dataclass(frozen=True)
class Setting:
    """A network and how it is trained in each stage; chosen on validation data."""

    network: Callable[[], nn.Module]
    batch_size: int
    #: Of plain training, where everything begins.
    plain_epochs: int
    #: Of training under the prior on weights, and then of the weights that are left.
    weight_epochs: int
    refit_epochs: int
    lr: float = 1e-3
    #: The KL's weight halfway through the training of weights and from then on: 1 is the bound, more removes more.
    kl_weight: float = 1.0
    #: Points of validation error that gates may cost: of 399 digits, one is a quarter.
    max_loss: float = 0.1
    #: And that the removal of weights may cost, before the last training wins back some of it.
    prune_loss: float = 0.15
    #: Behind which modules gates stand; None for no gates.
    gates: Any = None
    gate_epochs: int = 0
    #: What closing a gate is worth against closing another, by pattern of site names: roughly, what it saves.
    gate_factors: Mapping[str, float] = field(default_factory=lambda: {"*": 1.0})
    #: Weights of the gates' KL that are tried: more closes more.
    gate_weights: tuple[float, ...] = ()
    #: Epochs of plain training of the networks that gates have cut, and of the one whose weights are removed.
    tuning_epochs: int = 0
    last_epochs: int = 0


SETTINGS = {
    ("digits", "mlp"): Setting(
        lambda: mlp(64, (100, 100), 10), 50, 30, 200, 30, 3e-3, 0.1, max_loss=0.3, prune_loss=0.6,
        gates=nn.ReLU, gate_epochs=30, gate_weights=(1.0, 3.0, 10.0), tuning_epochs=20, last_epochs=20,
    ),
    ("digits", "convnet"): Setting(
        lambda: small_convnet(), 50, 30, 200, 30, 3e-3, 0.05, max_loss=0.3, prune_loss=0.6,
        gates=nn.ReLU, gate_epochs=30, gate_weights=(1.0, 3.0, 10.0), tuning_epochs=20, last_epochs=20,
    ),
    ("mnist", "lenet-300-100"): Setting(lenet_300_100, 200, 30, 200, 15, 1.4e-3, 1.5),
    # the paper's Table 1 has this network: the wider it is, the more of it the data have no use for
    ("mnist", "mlp-580"): Setting(lambda: mlp(784, (580, 580, 580), 10), 200, 30, 80, 10, 2e-3, 1.5, last_epochs=10),
    # a channel of the first convolution takes the most time
    ("mnist", "lenet-5"): Setting(
        lenet_5_caffe, 100, 12, 40, 6,
        gates=nn.ReLU, gate_epochs=6, gate_factors={"1.1.*": 60.0, "4.1.*": 6.0, "8.1.*": 0.5},
        gate_weights=(2.0, 5.0, 10.0, 20.0), tuning_epochs=12, last_epochs=24,
    ),
    ("cifar10", "resnet-20"): Setting(
        lambda: resnet(3), 100, 60, 60, 10,
        gates=["2", "*.body.2", "*.out"], gate_epochs=20, gate_weights=(1.0, 10.0), tuning_epochs=10, last_epochs=10,
    ),
    ("cifar10", "resnet-8"): Setting(
        lambda: resnet(1), 100, 60, 60, 10,
        gates=["2", "*.body.2", "*.out"], gate_epochs=20, gate_weights=(1.0, 10.0), tuning_epochs=10, last_epochs=10,
    ),
}  # fmt: skip


def small_convnet() -> nn.Module:
    """Two convolutions and two layers for the digits' 8x8 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 3), nn.ReLU(), nn.Conv2d(20, 30, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(120, 60), nn.ReLU(), nn.Linear(60, 10),
    )  # fmt: skip
