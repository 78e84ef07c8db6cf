"""The convolutional network of Tables 2 and 3 of Liu et al. 2019 (after Kingma et al. 2015), for 32x32 colour images."""

from __future__ import annotations

from torch import nn

__all__ = ["convnet"]


def convnet(scale: float = 1.0, classes: int = 10) -> nn.Sequential:
    """Two 5x5 convolutions of stride 2 with 32k and 64k filters, then two layers of 128k units, with softplus.

    The paper does not state the kernel size and padding; 5x5 with padding 2 is the usual reading.

    Args:
        scale: k, the width multiplier (1, 1.5 and 2 in Table 2).
        classes: outputs.
    """
    filters = [round(width * scale) for width in (32, 64, 128, 128)]
    return nn.Sequential(
        nn.Conv2d(3, filters[0], 5, stride=2, padding=2), nn.Softplus(),
        nn.Conv2d(filters[0], filters[1], 5, stride=2, padding=2), nn.Softplus(),
        nn.Flatten(), nn.Linear(filters[1] * 64, filters[2]), nn.Softplus(),
        nn.Linear(filters[2], filters[3]), nn.Softplus(), nn.Linear(filters[3], classes),
    )  # fmt: skip
