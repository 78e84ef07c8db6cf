"""The epoch that held-out data choose. The test data are looked at, and chosen by never."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from examples.paper.splits import Splits

__all__ = ["Measure", "measured", "metrics", "seconds"]

#: ``measure(network, x, y)``: metrics, among them ``"error"``.
Measure = Callable[[nn.Module, Tensor, Tensor], dict[str, Any]]


def measured(net: nn.Module, data: Splits, measure: Measure | None) -> dict[str, Any]:
    """What an epoch's record holds of its network, where there are held-out data; else nothing."""
    if measure is None or data.x_val is None or data.y_val is None:
        return {}
    return {"held_out": measure(net, data.x_val, data.y_val), "tested": measure(net, data.x_test, data.y_test)}


def metrics(
    net: nn.Module, data: Splits, measure: Measure, history: Sequence[dict[str, Any]], begin: float = 0.0
) -> dict[str, Any]:
    """The metrics of a cell: those of its last epoch, and as ``"picked"`` those of the epoch with least validation error.

    Args:
        net: the network after its last epoch.
        data: with held-out data or without; without, nothing is picked.
        measure: the metrics of a network.
        history: records of the last phase, with what :func:`measured` gave.
        begin: fraction of the epochs before which none is picked: for methods that are still removing weights then.
    """
    result = measure(net, data.x_test, data.y_test)
    candidates = [e for e, r in enumerate(history) if "held_out" in r and e >= int(begin * len(history))]
    if candidates:
        epoch = min(candidates, key=lambda e: history[e]["held_out"]["error"])
        validation = history[epoch]["held_out"]["error"]
        result["picked"] = {**history[epoch]["tested"], "epoch": epoch, "validation_error": validation}
    return result


def seconds(*histories: Sequence[dict[str, Any]]) -> float:
    """Training time of all phases, those before a kill included."""
    return sum(record["seconds"] for history in histories for record in history)
