"""One pass of training through the data: a step for each batch, and what became of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_vbd.training.processes import Processes
from pyro_vbd.training.run import Fit

__all__ = ["Gradients", "Report", "Step", "Totals", "common_step", "one_pass"]

#: The report of a batch's terms (:meth:`ELBOTerms.report`) and the names of its sites.
Report = tuple[Tensor, Sequence[str]]
#: Adds the gradients of the loss on a batch to the parameters.
Gradients = Callable[..., Report]
#: Takes a step of training, given a batch (None, where this process has no more), the process's part of the data in this
#: step, and the last step's report.
Step = Callable[[tuple[Any, ...] | None, float, Report], Report]


def one_pass(
    run: Fit,
    take_step: Step,
    look_every: int,
    batches: Iterable[tuple[Any, ...]],
    processes: Processes,
    checkpoint: Any,
) -> dict[str, Any]:
    """Take a step with each batch; the means over steps, in nats per datum.

    Args:
        run: whose ``step`` is counted on.
        take_step: a step.
        look_every: steps between two looks at their losses, each of which makes the host wait for the device.
        batches: this process's.
        processes: all that take part.
        checkpoint: the file, for messages.

    Raises:
        ValueError: for no batch.
        FloatingPointError: for a loss or a parameter that is not finite.
    """
    totals, reports = Totals(run, checkpoint), []
    report: Tensor = torch.zeros(0)
    sites: Sequence[str] = ()
    for batch, part in processes.in_step(batches):
        report, sites = take_step(batch, part, (report, sites))
        reports.append(report)
        run.step += 1
        if len(reports) == look_every:
            totals.add(reports, sites)
            reports.clear()
    totals.add(reports, sites)
    return totals.record()


class Totals:
    """Log-likelihood, KL and loss of a run, summed over the steps of a pass that begins now.

    Args:
        run: whose ``step`` others count on.
        checkpoint: the file, for messages.
    """

    def __init__(self, run: Fit, checkpoint: Any) -> None:
        self._run, self._checkpoint = run, checkpoint
        self._start, self._first = time.perf_counter(), run.step
        self._sums = torch.zeros(3, dtype=torch.float64, device="cpu")

    def add(self, reports: Sequence[Tensor], sites: Sequence[str]) -> None:
        """Count the last steps of the run.

        Raises:
            FloatingPointError: for a loss that is not finite; ``step`` is then that of the first.
        """
        if not reports:
            return
        values = torch.stack(list(reports)).to("cpu", torch.float64)
        finite = values[:, 0].isfinite()
        if not bool(finite.all()):
            place = int(finite.logical_not().nonzero()[0])
            self._run.step -= len(reports) - place  # the steps behind it have moved nothing
            raise FloatingPointError(_diagnosis(self._run, values[place], sites, self._checkpoint))
        self._sums += torch.stack([values[:, 1].sum(), values[:, 2:].sum(), values[:, 0].sum()])

    def record(self) -> dict[str, Any]:
        """The means over steps, in nats per datum, with settings and seconds.

        Raises:
            ValueError: for no steps.
            FloatingPointError: for a parameter that is not finite.
        """
        run = self._run
        if run.step == self._first:
            raise ValueError("the data gave no batch: pass a data set that is not empty and can be passed through again")
        if bad := _not_finite(run.parameters):
            raise FloatingPointError(
                f"the parameters {bad} are no longer finite after step {run.step} (epoch {run.epoch}): lower the learning "
                "rate" + _last_good(self._checkpoint)
            )
        means = self._sums / (run.step - self._first) / getattr(run.model, "num_data", 1)
        record = dict(zip(("log_likelihood", "kl", "loss"), means.tolist(), strict=True))
        settings = {"kl_weight": run.elbo.kl_weight, "lr": run.optimizer.param_groups[0]["lr"]}
        return {"epoch": run.epoch, **record, **settings, "seconds": time.perf_counter() - self._start}


def common_step(
    run: Fit,
    processes: Processes,
    add_gradients: Gradients,
    batch: tuple[Any, ...] | None,
    part: float,
    last: Report,
) -> Report:
    """A step of all processes, on the mean of their gradients. A loss that is not finite moves nothing."""
    run.optimizer.zero_grad()
    report, sites = last if batch is None else add_gradients(*batch)
    report = processes.average(list(run.parameters.values()), report, part)
    if math.isfinite(report[0].item()):
        run.optimizer.step()
    return report, sites


def _diagnosis(run: Fit, report: Tensor, sites: Sequence[str], checkpoint: Any) -> str:
    names = ["the log-likelihood", *sites]
    culprits = [name for name, value in zip(names, report[1:], strict=True) if not bool(value.isfinite())]
    culprits = [*culprits[1:], culprits[0]] if culprits[:1] == names[:1] else culprits
    bad = _not_finite(run.parameters)
    return (
        f"the loss is {report[0].item()} at step {run.step} (epoch {run.epoch}), from {', '.join(culprits) or 'its sum'}"
        + (f", with {bad} no longer finite" if bad else "")
        + ": look at the data of this step, or lower the learning rate"
        + _last_good(checkpoint)
    )


def _not_finite(parameters: dict[str, Tensor]) -> list[str]:
    return [name for name, value in parameters.items() if not bool(value.isfinite().all())]


def _last_good(checkpoint: Any) -> str:
    return f"; the last good state is in {checkpoint}" if checkpoint is not None and Path(checkpoint).exists() else ""
