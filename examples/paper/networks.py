"""The networks of Tables 4 and 5 by the name of their size."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from models import lenet_5_caffe, lenet_300_100, lenet_500_300

__all__ = ["LENETS"]

LENETS: Mapping[str, Callable[[], nn.Sequential]] = {
    "lenet-300-100": lenet_300_100,
    "lenet-500-300": lenet_500_300,
    "lenet-5": lenet_5_caffe,
}
