"""The LeNets of Tables 4 and 5 of Liu et al. 2019.

Weights without biases: LeNet-300-100 has 266,200, LeNet-500-300 545,000, LeNet-5-Caffe 430,500.
"""

from __future__ import annotations

from torch import nn

from models.mlp import mlp

__all__ = ["lenet_5_caffe", "lenet_300_100", "lenet_500_300"]


def lenet_300_100() -> nn.Sequential:
    """784-300-100-10 with ReLU, on images of shape ``(N, 1, 28, 28)`` or ``(N, 784)``."""
    return mlp(784, (300, 100), 10)


def lenet_500_300() -> nn.Sequential:
    """784-500-300-10 with ReLU, on images of shape ``(N, 1, 28, 28)`` or ``(N, 784)``."""
    return mlp(784, (500, 300), 10)


def lenet_5_caffe() -> nn.Sequential:
    """Two unpadded 5x5 convolutions (20 and 50 filters) with max-pooling, then 800-500-10; images ``(N, 1, 28, 28)``."""
    net = nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(20, 50, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10),
    )  # fmt: skip
    for layer in net:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return net
