"""The networks that are made smaller, and how each is trained."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from models import lenet_5_caffe, lenet_300_100, mlp, resnet

__all__ = ["SETTINGS", "Setting"]


@dataclass(frozen=True)
class Setting:
    """A network and how it is trained; chosen on validation data."""

    network: Callable[[], nn.Module]
    #: Behind which modules gates stand; None for weights alone.
    gates: Any
    epochs: int
    batch_size: int
    lr: float
    #: The KL's weight at the end: 1 is the bound, more removes more.
    kl_weight: float = 1.0
    #: Factors of the gates' KL, by pattern of site names.
    site_weights: Any = None
    init_log_var: float = -10.0
    fine_tuning: int = 10


SETTINGS = {
    ("digits", "mlp"): Setting(lambda: mlp(64, (100, 100), 10), nn.ReLU, 100, 50, 3e-3),
    ("digits", "convnet"): Setting(lambda: small_convnet(), nn.ReLU, 60, 50, 3e-3),
    ("mnist", "lenet-300-100"): Setting(lenet_300_100, None, 200, 200, 1.4e-3, 1.4),
    ("mnist", "lenet-5"): Setting(lenet_5_caffe, nn.ReLU, 60, 100, 1e-3, site_weights={"*.1.weight": 20.0}),
    ("cifar10", "resnet"): Setting(lambda: resnet(3), ["2", "*.body.2", "*.out"], 60, 100, 1e-3),
}


def small_convnet() -> nn.Module:
    """Two convolutions and two layers for the digits' 8x8 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 3), nn.ReLU(), nn.Conv2d(20, 30, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(120, 60), nn.ReLU(), nn.Linear(60, 10),
    )  # fmt: skip
