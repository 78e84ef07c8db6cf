"""Several runs at once: seeds, or values of a hyperparameter, trained side by side for less than one after the other."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from pyro_vbd.elbo import VBD_ELBO
from pyro_vbd.guide import VBDGuide
from pyro_vbd.modes import in_mode
from pyro_vbd.placement import moved
from pyro_vbd.training.batches import Batches
from pyro_vbd.training.checkpoint import save_checkpoint
from pyro_vbd.training.denormals import flushed_denormals
from pyro_vbd.training.epoch_end import end_epoch, has_ended
from pyro_vbd.training.loop import Callback, Fit
from pyro_vbd.training.member_steps import MemberSteps
from pyro_vbd.training.one_pass import Totals
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.resume import assign, refuse_other, restore, run_state, saved_state
from pyro_vbd.training.schedules import Schedule, constant
from pyro_vbd.training.start import check_arguments, check_elbo, find_parameters, make_optimizer

__all__ = ["fit_members"]

#: Steps between two looks at their losses.
_LOOK_EVERY = 50


def fit_members(
    models: Sequence[Callable[..., Any]],
    guides: Sequence[VBDGuide],
    data: Iterable[Any],
    *,
    epochs: int,
    lr: float | Sequence[float] = 1e-3,
    optimizer: Callable[[list[Tensor]], Optimizer] | None = None,
    elbo: VBD_ELBO | Sequence[VBD_ELBO] | None = None,
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
) -> list[Fit]:
    """Train K models at once, as :func:`~pyro_vbd.fit` would train each; a run for each.

    ::

        models = [vbd.Classifier(lenet_300_100(), vbd.priors.Horseshoe(scale), num_data=60_000) for scale in scales]
        guides = [vbd.VBDGuide(model) for model in models]
        runs = vbd.fit_members(models, guides, data, epochs=20, compile=True)

    The step is traced, and mapped over the members by ``torch.vmap``: they take the same steps on the same batches, and may
    differ in the values of tensors (initial weights, buffers), in the hyperparameters of their priors, in ``kl_weight`` and
    in learning rates. Noise is each member's own. Each ends where a run of its own would, given that noise; models, guides
    and records are ordinary ones. A member that has stopped, by ``patience`` or by a callback or because its loss was not
    finite, stays as it is while the others go on, and costs as much as they do.

    On a CPU it pays for small networks, whose steps are mostly overhead: eight of 784-16-10 take a third of the time of
    eight compiled runs, eight of 784-300-100-10 nine tenths, and convolutional networks take longer than one by one.
    Without ``compile`` larger networks take longer too.

    Arguments that are not here are those of :func:`~pyro_vbd.fit`.

    Args:
        models: K static Pyro models of one structure, no two with a parameter in common (a ``pyro.param`` of one name is
            one for all).
        guides: a guide for each.
        lr: learning rate, or one for each member.
        optimizer: makes a member's optimizer, a ``torch.optim.Adam`` without weight decay or amsgrad.
        elbo: the objective, or one for each member, which may differ in ``kl_weight``.
        patience: counts for each member by itself.
        callbacks: called for each member that took part in the epoch.
        checkpoint: one file for all members, from which the call goes on as :func:`~pyro_vbd.fit` does; but a member that
            had stopped before the others stays so, with a warning where nothing would stop it now.
        seed: of all random states, set at the start. Members differ from each other with and without it.
        compile: whether to compile the mapped step (:func:`~pyro_vbd.compile`). Without, it runs as a graph of torch's
            operators, as it does for batches of another shape than the first.

    Returns:
        The runs in the order of the models; ``failure`` says why a member came to an early end, with a warning.

    Raises:
        ValueError: for members that cannot be trained at once, and why: other steps or shapes, a step that is not static or
            that vmap does not know, a parameter in common, another optimizer; under torch.distributed with several
            processes; and where :func:`~pyro_vbd.fit` does.
        FloatingPointError: when no member is left whose loss is finite.
    """
    check_arguments(data, epochs, patience, validation)
    processes = Processes()
    if processes.size > 1:
        raise ValueError(
            f"members train in one process, and there are {processes.size}: give each process members of its own"
        )
    if len(models) != len(guides) or not models:
        raise ValueError(f"there are {len(models)} models and {len(guides)} guides: pass a guide for each model, 1 or more")
    if seed is not None:
        pyro.set_rng_seed(seed)
    modules = [part for part in (*models, *guides) if isinstance(part, nn.Module)]
    if device is not None:
        for module in modules:
            module.to(device)
    rates = _for_each("lr", lr, len(models))
    elbos = _for_each("elbo", VBD_ELBO() if elbo is None else elbo, len(models))
    for one in elbos:
        check_elbo(one)
    parts = list(zip(models, guides, elbos, strict=True))
    parameters = [find_parameters(*part, data, device, processes) for part in parts]
    leaves = [list(trained.values()) for trained in parameters]
    runs = [Fit(*part, make_optimizer(optimizer, own, rate)) for part, own, rate in zip(parts, leaves, rates, strict=True)]
    base_rates = [[group["lr"] for group in run.optimizer.param_groups] for run in runs]
    base_kl_weights = [run.elbo.kl_weight for run in runs]
    best: list[dict[str, Tensor]] = [{} for _ in runs]
    if checkpoint is not None:
        best = _resume(runs, parameters, Path(checkpoint), processes)
    first = max(run.epoch for run in runs)
    bar = tqdm(total=epochs, initial=first, disable=not progress, desc=f"fit {len(runs)} members", unit="epoch")
    steps = MemberSteps(runs, leaves, compile, bar.set_postfix_str)
    try:
        with bar, flushed_denormals(), ExitStack() as modes:
            for module in modules:
                modes.enter_context(in_mode(module, True))
            _stop_ended(runs, patience, callbacks)
            while active := [run for run in runs if not run.stop and run.epoch < epochs]:
                epoch = active[0].epoch
                for run, base, base_kl_weight in zip(runs, base_rates, base_kl_weights, strict=True):
                    run.elbo.kl_weight = base_kl_weight * kl_schedule(epoch, epochs)
                    for group, rate in zip(run.optimizer.param_groups, base, strict=True):
                        group["lr"] = rate * lr_schedule(epoch, epochs)
                is_new = epoch == first or not isinstance(data, Batches)
                records = _one_pass(runs, steps, parameters, moved(data, *modules, device=device), is_new, checkpoint)
                for k, record in records.items():
                    held_out = None if validation is None else moved(validation, *modules, device=device)
                    best[k] = end_epoch(runs[k], record, parameters[k], best[k], held_out, patience, callbacks, processes)
                if checkpoint is not None:
                    states = [run_state(*state, processes) for state in zip(runs, parameters, best, strict=True)]
                    failures = [run.failure for run in runs]
                    save_checkpoint(checkpoint, {"members": states, "failures": failures})
                bar.update()
                losses = [record["loss"] for record in records.values()]
                bar.set_postfix_str(f"losses {min(losses):.4g} to {max(losses):.4g}" if losses else "")
    finally:
        for run, base_kl_weight in zip(runs, base_kl_weights, strict=True):
            run.elbo.kl_weight = base_kl_weight
    for run, trained, values in zip(runs, parameters, best, strict=True):
        if values and patience is not None:
            assign(trained, run.model, values)
    return runs


def _for_each(name: str, value: Any, count: int) -> list[Any]:
    if not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries for {count} members: pass one for each, or one for all")
    return list(value)


def _one_pass(
    runs: Sequence[Fit],
    steps: MemberSteps,
    parameters: Sequence[dict[str, Tensor]],
    batches: Iterable[tuple[Any, ...]],
    check: bool,
    checkpoint: Any,
) -> dict[int, dict[str, Any]]:
    """A step of all members with each batch; the records of those that go on, by number."""
    totals = {k: Totals(run, parameters[k], checkpoint) for k, run in enumerate(runs) if not run.stop}
    reports: list[Tensor] = []
    sites: Sequence[str] = ()
    with steps.training():
        for batch in batches:
            report, sites = steps(batch, check)
            reports.append(report)
            for k in totals:
                runs[k].step += 1
            if len(reports) == _LOOK_EVERY:
                _look(runs, totals, reports, sites)
            if not totals:
                break
        _look(runs, totals, reports, sites)
    records = {}
    for k, own in totals.items():
        try:
            records[k] = own.record()
        except FloatingPointError as error:
            _fail(runs, k, error)
    if not records and all(run.failure for run in runs):
        raise FloatingPointError(f"no member is left; the last one, {k}, fails since {runs[k].failure}")
    return records


def _look(runs: Sequence[Fit], totals: dict[int, Totals], reports: list[Tensor], sites: Sequence[str]) -> None:
    """Count the last steps of each member, and let go of those whose loss was not finite."""
    values = torch.stack(reports).cpu() if reports else torch.zeros(0, len(runs))
    for k in list(totals):
        try:
            totals[k].add(list(values[:, k]), sites)
        except FloatingPointError as error:
            _fail(runs, k, error)
            del totals[k]
    reports.clear()


def _fail(runs: Sequence[Fit], k: int, error: FloatingPointError) -> None:
    runs[k].stop, runs[k].failure = True, str(error)
    warnings.warn(f"member {k} stops, and the others go on: {error}", stacklevel=4)


def _stop_ended(runs: Sequence[Fit], patience: int | None, callbacks: Sequence[Callback]) -> None:
    """Let members of an earlier part of the run rest, where they have ended or cannot take the others' steps."""
    last = max(run.epoch for run in runs)
    for k, run in enumerate(runs):
        run.stop = run.failure is not None or has_ended(run, patience, callbacks)
        if run.epoch < last and not run.stop:
            run.stop = True
            warnings.warn(
                f"member {k} had stopped at epoch {run.epoch} and stays there, for the others are at {last}: train it "
                "further by itself, with fit",
                stacklevel=3,
            )


def _resume(
    runs: Sequence[Fit], parameters: Sequence[dict[str, Tensor]], path: Path, processes: Processes
) -> list[dict[str, Tensor]]:
    """Put the state of a checkpoint into the runs, if there is one; the best parameters so far."""
    state = saved_state(path, processes)
    if state is None:
        return [{} for _ in runs]
    if "members" not in state:
        raise ValueError(f"{path} holds a run of fit: pass it to fit, or another path to fit_members")
    if (count := len(state["members"])) != len(runs):
        raise ValueError(f"{path} holds a run of {count} members, and there are {len(runs)}: pass another checkpoint path")
    members = list(zip(runs, parameters, state["members"], strict=True))
    for k, member in enumerate(members):
        refuse_other(*member, f"member {k} of {path}")
    for run, failure in zip(runs, state["failures"], strict=True):
        run.failure = failure
    return [restore(*member, processes) for member in members]
