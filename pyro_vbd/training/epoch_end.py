"""What happens to a run at the end of an epoch: validation, the best parameters so far, callbacks, and whether to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyro_vbd.random_state import get_random_state, set_random_state
from pyro_vbd.training.evaluation import mean_loss, summed_negative_log_likelihood
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.resume import buffers
from pyro_vbd.training.run import Fit

__all__ = ["end_epoch", "has_ended"]


def end_epoch(
    run: Fit,
    record: dict[str, Any],
    held_out: Iterable[Any] | None,
    patience: int | None,
    callbacks: Sequence[Callable[[Fit], Any]],
    processes: Processes,
) -> None:
    """Count an epoch, complete its record, and keep the parameters if its validation loss is the lowest so far.

    Args:
        run: its ``stop`` is set after ``patience`` epochs with a validation loss that is not lower, and where a callback
            has set it in any process.
        record: of the pass through the data.
        held_out: this process's batches for validation, if there is any.
        patience: epochs, if the run is to stop early.
        callbacks: functions of the run, which may add to the record.
        processes: all that take part.

    Raises:
        ValueError: for validation data without a target, or a callback's entry of a name that the record has.
    """
    run.epoch += 1
    run.history.append(record)
    if held_out is not None:
        own = summed_negative_log_likelihood(run.model, run.guide, held_out)
        record["validation"] = mean_loss(*processes.total(*own))
        _keep_best(run)
        run.stop = _has_waited(run.history, patience)
    for callback in callbacks:
        _add(record, callback(run))
    run.stop = processes.any(run.stop)


def has_ended(run: Fit, patience: int | None, callbacks: Sequence[Callable[[Fit], Any]]) -> bool:
    """Whether a run that goes on from a checkpoint stops where it is: by this call's patience, or by a callback.

    Callbacks are asked only if the run had stopped. They see it as it was then, and what they return is ignored.
    """
    had_stopped, run.stop = run.stop, _has_waited(run.history, patience)
    if had_stopped and not run.stop:
        state = get_random_state()
        for callback in callbacks:
            callback(run)
        set_random_state(state)
    return run.stop


def _keep_best(run: Fit) -> None:
    if _epochs_since_best(run.history) == 0:
        run.best_epoch = run.epoch - 1
        run.best = {name: v.detach().clone() for name, v in {**run.parameters, **buffers(run.model)}.items()}


def _has_waited(history: Sequence[dict[str, Any]], patience: int | None) -> bool:
    return patience is not None and _epochs_since_best(history) >= patience


def _epochs_since_best(history: Sequence[dict[str, Any]]) -> int:
    """How many epochs had a validation loss after the first of the lowest; one that is not finite counts as infinite."""
    losses = [record["validation"] for record in history if "validation" in record]  # a part of the run may have had none
    losses = [loss if math.isfinite(loss) else math.inf for loss in losses]
    return len(losses) - 1 - losses.index(min(losses)) if losses else 0


def _add(record: dict[str, Any], added: Any) -> None:
    """Put what a callback returns into the record, if it is a dict."""
    if isinstance(added, dict):
        if taken := sorted(added.keys() & record.keys()):
            raise ValueError(f"a callback returns {taken}, which the record holds already: give them other names")
        record.update(added)
