"""Which weights share one gamma: a weight alone, an output unit or filter, an input unit, a kernel, a layer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import torch

__all__ = ["SHARING", "is_input_first", "shared_shape"]

#: By name, the dimensions of a weight that gamma keeps; it is shared along the others. None keeps all.
SHARING: Mapping[str, tuple[int, ...] | None] = MappingProxyType(
    {"weight": None, "output": (0,), "filter": (0,), "input": (1,), "kernel": (0, 1), "layer": ()}
)

_OTHER_WAY_ROUND = MappingProxyType({0: 1, 1: 0})


def shared_shape(per: str, shape: torch.Size, swapped: bool = False) -> torch.Size:
    """Shape of the gammas of a weight of ``shape``: 1 along the dimensions that share one.

    Args:
        per: ``"weight"``; ``"output"`` or ``"filter"``, one for all weights into an output unit, of a convolution into an
            output channel; ``"input"``, one for all weights out of an input unit or channel; ``"kernel"``, one for each
            pair of channels; ``"layer"``.
        shape: of the weight, its output dimension first and its input dimension second, as in ``Linear``.
        swapped: whether these two are the other way round, as in a transposed convolution and an embedding.

    Raises:
        ValueError: if ``per`` is another word, or asks for a dimension that the weight has not.
    """
    if per not in SHARING:
        raise ValueError(f"per={per!r} is unknown: use one of {', '.join(SHARING)}")
    kept = SHARING[per]
    if kept is None:
        return shape
    if swapped:
        kept = tuple(_OTHER_WAY_ROUND[d] for d in kept)
    if kept and max(kept) >= len(shape):
        raise ValueError(
            f"per={per!r} asks for dimension {max(kept)} of a weight of shape {tuple(shape)}: use per='weight'"
        )
    return torch.Size(size if d in kept else 1 for d, size in enumerate(shape))


def is_input_first(module: torch.nn.Module) -> bool:
    """Whether the weights of a module have their input dimension first."""
    return isinstance(module, torch.nn.modules.conv._ConvTransposeNd | torch.nn.Embedding | torch.nn.EmbeddingBag)
