"""The rows that Tables 2 and 3 have in common: dropouts on the convolutional network for 32x32 colour images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from examples.paper.cell import Method
from examples.paper.dropout_rows import dropout_rows
from models import convnet

__all__ = ["NOTE", "methods"]

#: No noise on the image; the rate of the paper's Table 3, "0.5 for all layers", on all that follows.
PLAIN = {"epochs": 100, "batch_size": 100, "lr": 1e-3, "decay_from": 0.5, "rates": [0.0, 0.5]}
BAYES = {"epochs": 100, "batch_size": 100, "lr": 1e-3, "decay_from": 0.5, "kl_ramp": [5, 20], "kl_weight": 1.0}

NOTE = (
    "The paper states 100 epochs and rates of 0.5, no more. Here: Adam at 1e-3, falling to 0 over the second half, batches "
    "of 100, standardised images, no augmentation; noise on the inputs of every layer but the first, channel by channel in "
    "concrete dropout's convolutions; the adversary stands before the last layer and may switch 5% of its inputs."
)


def network(size: str) -> nn.Sequential:
    """The network of a scale."""
    return convnet(float(size))


def methods(sizes: Sequence[str], printed: Mapping[str, Mapping[str, Any]]) -> dict[str, Method]:
    """All rows.

    Args:
        sizes: scales of the network.
        printed: the paper's figures, by row and size.
    """
    names = ("none", "bernoulli", "gaussian", "adversarial", "concrete", "vd", "vd-sparse", "vbd")
    return dropout_rows(names, network, sizes, PLAIN, dict.fromkeys(sizes, BAYES), printed)
