"""The loop over epochs, of one run or of several that go in step."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from pyro_vbd.modes import in_mode
from pyro_vbd.placement import moved
from pyro_vbd.training.checkpoint import save_checkpoint
from pyro_vbd.training.denormals import flushed_denormals
from pyro_vbd.training.epoch_end import end_epoch, has_ended
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.resume import assign
from pyro_vbd.training.run import Callback, Fit
from pyro_vbd.training.schedules import Schedule

__all__ = ["run_epochs"]

#: Trains by a pass through the batches; the records of the runs that go on, by their numbers.
Pass = Callable[[Iterable[tuple[Any, ...]]], dict[int, dict[str, Any]]]


def run_epochs(
    runs: Sequence[Fit],
    data: Iterable[Any],
    take_pass: Pass,
    state: Callable[[], dict[str, Any]],
    bar: tqdm[Any],
    processes: Processes,
    *,
    epochs: int,
    kl_schedule: Schedule,
    lr_schedule: Schedule,
    validation: Iterable[Any] | None,
    patience: int | None,
    callbacks: Sequence[Callback],
    checkpoint: str | os.PathLike[str] | None,
    device: Any,
) -> None:
    """Train until all runs have ended; with ``patience`` each ends in its best parameters.

    KL weights and learning rates are what they were before, however it ends.

    The arguments behind the asterisk are those of :func:`~pyro_vbd.fit`.

    Args:
        runs: as they begin or go on, all at the same epoch but for those that rest.
        data: batches.
        take_pass: an epoch's training.
        state: what a checkpoint holds of the runs, to be called in all processes.
        bar: shows the epochs.
        processes: all that take part.
    """
    modules = [part for run in runs for part in (run.model, run.guide) if isinstance(part, nn.Module)]
    base_rates = [[group["lr"] for group in run.optimizer.param_groups] for run in runs]
    base_kl_weights = [run.elbo.kl_weight for run in runs]
    try:
        # where gradients are off around it too
        with bar, flushed_denormals(), torch.inference_mode(False), torch.enable_grad(), ExitStack() as modes:
            for module in modules:
                modes.enter_context(in_mode(module, True))
            _stop_ended(runs, patience, callbacks, processes)
            while active := [run for run in runs if not run.stop and run.epoch < epochs]:
                epoch = active[0].epoch
                for run, rates, kl_weight in zip(runs, base_rates, base_kl_weights, strict=True):
                    factor = lr_schedule(epoch, epochs)
                    _set(run, [rate * factor for rate in rates], kl_weight * kl_schedule(epoch, epochs))
                records = take_pass(moved(processes.share(data, epoch), *modules, device=device))
                for number, record in records.items():
                    held_out = None
                    if validation is not None:
                        held_out = moved(processes.share(validation, epoch + 1), *modules, device=device)
                    end_epoch(runs[number], record, held_out, patience, callbacks, processes)
                if checkpoint is not None:
                    everything = state()
                    if processes.rank == 0:
                        save_checkpoint(checkpoint, everything)
                bar.update()
                bar.set_postfix_str(_in_words(list(records.values())))
    finally:
        for run, rates, kl_weight in zip(runs, base_rates, base_kl_weights, strict=True):
            _set(run, rates, kl_weight)
    for run in runs:
        if run.best and patience is not None:
            assign(run, run.best)


def _set(run: Fit, rates: Sequence[Any], kl_weight: float) -> None:
    """Give a run the learning rates of its groups, and the weight of its KL."""
    run.elbo.kl_weight = kl_weight
    for group, rate in zip(run.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def _stop_ended(runs: Sequence[Fit], patience: int | None, callbacks: Sequence[Callback], processes: Processes) -> None:
    """Let runs rest that have ended in an earlier part, or that cannot take the others' steps."""
    last = max(run.epoch for run in runs)
    for number, run in enumerate(runs):
        run.stop = run.failure is not None or processes.any(has_ended(run, patience, callbacks))
        if run.epoch < last and not run.stop:
            run.stop = True
            warnings.warn(
                f"member {number} had stopped at epoch {run.epoch} and stays there, for the others are at {last}: train it "
                "further by itself, with fit",
                stacklevel=4,
            )


def _in_words(records: Sequence[dict[str, Any]]) -> str:
    """The losses of an epoch; of several runs the range."""
    words = []
    for name in ("loss", "validation"):
        values = [record[name] for record in records if name in record]
        if values:
            low, high = f"{min(values):.4g}", f"{max(values):.4g}"
            words.append(f"{name}={low}" if low == high else f"{name}={low} to {high}")
    return ", ".join(words)
