"""The training loop around ``elbo(model, guide)``: what examples need and users expect, and no more."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils._pytree import tree_map
from tqdm import tqdm

from pyro_vbd.batches import Batches
from pyro_vbd.checkpoint import save_checkpoint
from pyro_vbd.compile import compile as compile_loss
from pyro_vbd.elbo import VBD_ELBO
from pyro_vbd.evaluation import negative_log_likelihood
from pyro_vbd.guide import VBDGuide
from pyro_vbd.modes import in_mode
from pyro_vbd.parameters import captured_parameters
from pyro_vbd.prototype import untouched
from pyro_vbd.resume import assign, buffers, resume, run_state
from pyro_vbd.schedules import Schedule, constant

__all__ = ["Fit", "fit"]


@dataclass
class Fit:
    """A run as it stands: what callbacks see, and what :func:`fit` returns."""

    model: Callable[..., Any]
    guide: VBDGuide
    elbo: VBD_ELBO
    optimizer: Optimizer
    #: One record per epoch: loss, log_likelihood and kl (nats per datum), kl_weight, lr, seconds; callbacks add to it.
    history: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    #: Epoch with the lowest validation loss, where there is validation.
    best_epoch: int | None = None
    #: A callback sets it to end the run after this epoch.
    stop: bool = False


Callback = Callable[[Fit], Any]
#: Takes a step of training on a batch; the report of its terms (:meth:`ELBOTerms.report`) and the names of the sites.
Step = Callable[..., tuple[Tensor, Sequence[str]]]
#: Compiled steps between two looks at their losses, each of which makes the host wait for the device.
_LOOK_EVERY = 50


def fit(
    model: Callable[..., Any],
    guide: VBDGuide,
    data: Iterable[Any],
    *,
    epochs: int,
    lr: float = 1e-3,
    optimizer: Callable[[list[Tensor]], Optimizer] | None = None,
    elbo: VBD_ELBO | None = None,
    kl_schedule: Schedule = constant,
    lr_schedule: Schedule = constant,
    validation: Iterable[Any] | None = None,
    patience: int | None = None,
    callbacks: Sequence[Callback] = (),
    checkpoint: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    device: torch.device | str | None = None,
    compile: bool = False,
    progress: bool = True,
) -> Fit:
    """Maximise the bound over passes through the data, and go on where a killed run left off.

    Args:
        model: a Pyro model; a module's parameters are trained with the guide's, and so are ``pyro.param`` statements.
        guide: its :class:`~pyro_vbd.VBDGuide`.
        data: a DataLoader, or anything that gives batches anew at each pass: a tuple is passed to the model as its
            positional arguments.
        epochs: passes through the data, those of an earlier part of a resumed run included.
        lr: learning rate of the default optimizer, Adam.
        optimizer: makes the optimizer from the list of parameters instead.
        elbo: the objective; ``VBD_ELBO()`` by default. Its ``kl_weight`` is multiplied by ``kl_schedule`` during the run.
        kl_schedule: multiplier of the KL weight by epoch, such as ``schedules.kl_ramp(5, 20)``.
        lr_schedule: multiplier of the learning rate by epoch, such as ``schedules.linear_decay(0.5)``.
        validation: held-out batches; adds ``validation``, the mean negative log-likelihood per datum at the posterior
            medians, to the history. Parameters end at the epoch where it was lowest if ``patience`` is given.
        patience: stop after this many epochs without a lower validation loss.
        callbacks: functions of the :class:`Fit`, called after each epoch; a dict that one returns joins the record.
        checkpoint: file to write after each epoch. Where it exists, the run goes on from it, and on CPU ends in the same
            parameters bit for bit as a run that was never interrupted, if the data come in an order that follows from
            torch's, Python's or NumPy's random state.
        seed: of all random states, set at the start of a run.
        device: where to train; model, guide and batches are moved there.
        compile: whether to compile the step (:func:`~pyro_vbd.compile`): on a CPU three times as fast for dense networks,
            and more under priors with much arithmetic, half as fast again for LeNet-5, no faster for a residual network.
            It takes ten seconds to two minutes at the start and so pays in runs of some thousands of steps: off by
            default. Batches of another shape than the first, the smaller one at the end of a pass say, run as they would
            without. ``Batches`` has its values checked in the first pass only.
        progress: whether to show a bar.

    Raises:
        ValueError: for no data, arguments out of range, or a checkpoint that is damaged or of another network.
        FloatingPointError: when the loss is no longer finite, with the step and the site, and the parameters as before the
            step (with ``compile`` it is raised up to 50 steps later, which move no parameter); or at the end of an epoch,
            when a parameter is not. The last good checkpoint stays.
    """
    _check_arguments(epochs, patience, validation)
    if seed is not None:
        pyro.set_rng_seed(seed)
    if device is not None:
        for part in (model, guide):
            if isinstance(part, nn.Module):
                part.to(device)
    elbo = VBD_ELBO() if elbo is None else elbo
    parameters = _find_parameters(model, guide, elbo, data, device)
    make = optimizer or (lambda params: torch.optim.Adam(params, lr=lr, fused=True))
    run = Fit(model, guide, elbo, make(list(parameters.values())))
    base_rates = [group["lr"] for group in run.optimizer.param_groups]
    base_kl_weight = elbo.kl_weight
    best: dict[str, Tensor] = {}
    if checkpoint is not None:
        best = resume(run, parameters, Path(checkpoint))
    take_step: Step = partial(_eager_step, run)
    fresh = True  # data that have not been looked at
    bar = tqdm(total=epochs, initial=run.epoch, disable=not progress, desc="fit", unit="epoch")
    # one graph: compiling another for the smaller batch at the end of each epoch would take longer than it saves
    compiled = compile_loss(elbo(model, guide), 1, bar.set_postfix_str) if compile else None  # type: ignore[arg-type]
    try:
        with bar, in_mode(model, True), in_mode(guide, True):
            while run.epoch < epochs and not run.stop:
                elbo.kl_weight = base_kl_weight * kl_schedule(run.epoch, epochs)
                rate = lr_schedule(run.epoch, epochs)
                for group, base in zip(run.optimizer.param_groups, base_rates, strict=True):
                    group["lr"] = base * rate
                if compiled is not None:
                    take_step = partial(compiled.update, run.optimizer, check=fresh or not isinstance(data, Batches))
                look_every = 1 if compiled is None else _LOOK_EVERY
                record = _epoch(run, take_step, look_every, parameters, _moved(data, device), checkpoint)
                fresh = False
                run.epoch += 1
                run.history.append(record)
                if validation is not None:
                    record["validation"] = negative_log_likelihood(model, guide, _moved(validation, device))
                    best = _keep_best(run, parameters, best, patience)
                for callback in callbacks:
                    added = callback(run)
                    record.update(added if isinstance(added, dict) else {})
                if checkpoint is not None:
                    save_checkpoint(checkpoint, run_state(run, parameters, best))
                bar.update()
                bar.set_postfix({k: f"{record[k]:.4g}" for k in ("loss", "validation") if k in record})
    finally:
        elbo.kl_weight = base_kl_weight
    if best and patience is not None:
        assign(parameters, model, best)
    return run


def _epoch(
    run: Fit,
    take_step: Step,
    look_every: int,
    parameters: dict[str, Tensor],
    batches: Iterable[tuple[Any, ...]],
    checkpoint: Any,
) -> dict[str, Any]:
    """One pass; the means over its steps, in nats per datum."""
    start = time.perf_counter()
    totals = torch.zeros(3, dtype=torch.float64)
    first, reports = run.step, []
    for batch in batches:
        report, sites = take_step(*batch)
        reports.append(report)
        run.step += 1
        if len(reports) == look_every:
            totals += _totals(run, reports, sites, parameters, checkpoint)
            reports.clear()
    if run.step == first:
        raise ValueError("the data gave no batch: pass a data set that is not empty and can be passed through again")
    if reports:
        totals += _totals(run, reports, sites, parameters, checkpoint)
    if bad := _not_finite(parameters):
        raise FloatingPointError(
            f"the parameters {bad} are no longer finite after step {run.step} (epoch {run.epoch}): lower the learning rate"
            + _last_good(checkpoint)
        )
    means = totals / (run.step - first) / getattr(run.model, "num_data", 1)
    record = dict(zip(("log_likelihood", "kl", "loss"), means.tolist(), strict=True))
    settings = {"kl_weight": run.elbo.kl_weight, "lr": run.optimizer.param_groups[0]["lr"]}
    return {"epoch": run.epoch, **record, **settings, "seconds": time.perf_counter() - start}


def _eager_step(run: Fit, *batch: Any) -> tuple[Tensor, Sequence[str]]:
    """A step of training without a graph. A loss that is not finite moves nothing."""
    run.optimizer.zero_grad()
    terms = run.elbo.terms(run.model, run.guide, *batch)
    loss = -terms.elbo
    report = terms.report().detach()
    if math.isfinite(loss.item()):
        loss.backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
    return report, tuple(terms.kl_by_site)


def _totals(
    run: Fit, reports: Sequence[Tensor], sites: Sequence[str], parameters: dict[str, Tensor], checkpoint: Any
) -> Tensor:
    """Log-likelihood, KL and loss, summed over steps; the one place where the host waits for the device."""
    values = torch.stack(list(reports)).to("cpu", torch.float64)
    finite = values[:, 0].isfinite()
    if not bool(finite.all()):
        place = int(finite.logical_not().nonzero()[0])
        run.step -= len(reports) - place  # the steps behind it have moved nothing
        raise FloatingPointError(_diagnosis(run, values[place], sites, parameters, checkpoint))
    return torch.stack([values[:, 1].sum(), values[:, 2:].sum(), values[:, 0].sum()])


def _diagnosis(run: Fit, report: Tensor, sites: Sequence[str], parameters: dict[str, Tensor], checkpoint: Any) -> str:
    names = ["the log-likelihood", *sites]
    culprits = [name for name, value in zip(names, report[1:], strict=True) if not bool(value.isfinite())]
    culprits = [*culprits[1:], culprits[0]] if culprits[:1] == names[:1] else culprits
    bad = _not_finite(parameters)
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


def _check_arguments(epochs: int, patience: int | None, validation: Any) -> None:
    if epochs < 1:
        raise ValueError(f"epochs={epochs} trains nothing: use 1 or more")
    if patience is not None and validation is None:
        raise ValueError(f"patience={patience} needs a validation loss to watch: pass validation=")
    if patience is not None and patience < 1:
        raise ValueError(f"patience={patience} stops before the first epoch: use 1 or more")


def _find_parameters(model: Any, guide: VBDGuide, elbo: VBD_ELBO, data: Iterable[Any], device: Any) -> dict[str, Tensor]:
    """Every leaf that the loss depends on, by name, found by one run that leaves no trace."""
    with untouched(model):
        try:
            batch = next(iter(_moved(data, device)))
        except StopIteration:
            raise ValueError("the data gave no batch: pass a data set that is not empty") from None
        guide(*batch)  # a guide that has not met the data yet makes its parameters here
        with captured_parameters() as named:
            elbo.loss(model, guide, *batch)
    found: dict[str, Tensor] = {}
    for label, part in (("model", model), ("guide", guide)):
        if isinstance(part, nn.Module):
            found.update({f"{label}.{n}": p for n, p in part.named_parameters()})
    # the names of a module's parameters are the same in the next process; those of announced ones need not be
    known = {id(value) for value in found.values()}
    found.update({name: value for name, value in named.items() if id(value) not in known})
    return {name: value for name, value in found.items() if value.requires_grad}


def _keep_best(run: Fit, parameters: dict[str, Tensor], best: dict[str, Tensor], patience: int | None) -> dict[str, Tensor]:
    losses = [record["validation"] for record in run.history]
    lowest = min(range(len(losses)), key=losses.__getitem__)
    if lowest == len(losses) - 1:
        run.best_epoch = lowest
        best = {name: value.detach().clone() for name, value in {**parameters, **buffers(run.model)}.items()}
    run.stop = run.stop or (patience is not None and len(losses) - 1 - lowest >= patience)
    return best


def _moved(data: Iterable[Any], device: Any) -> Iterator[tuple[Any, ...]]:
    """Batches as tuples of positional arguments, on the device."""
    for batch in data:
        batch = tuple(batch) if isinstance(batch, tuple | list) else (batch,)
        yield tree_map(lambda v: v.to(device) if isinstance(v, Tensor) else v, batch) if device is not None else batch
