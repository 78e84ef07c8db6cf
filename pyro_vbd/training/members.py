"""Several runs at once: seeds, or values of a hyperparameter, trained side by side for less than one after the other."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor
from torch.optim import Optimizer
from tqdm import tqdm

from pyro_vbd.elbo import VBD_ELBO
from pyro_vbd.guide import VBDGuide
from pyro_vbd.training.batches import Batches
from pyro_vbd.training.epochs import run_epochs
from pyro_vbd.training.member_steps import MemberSteps
from pyro_vbd.training.one_pass import Totals
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.resume import refuse_other, restore, run_state, saved_state
from pyro_vbd.training.run import Callback, Fit
from pyro_vbd.training.schedules import Schedule, constant
from pyro_vbd.training.start import begin, check_arguments, check_elbo

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
    eight compiled runs, eight of 784-300-100-10 or LeNet-5-Caffe nine tenths, wider ones as long as one by one. Without
    ``compile`` larger dense networks take longer than that.

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
            f"members train in one process, and torch.distributed has {processes.size}: leave out init_process_group, and "
            "give each process members of its own"
        )
    if len(models) != len(guides) or not models:
        raise ValueError(f"there are {len(models)} models and {len(guides)} guides: pass a guide for each model, 1 or more")
    if seed is not None:
        pyro.set_rng_seed(seed)
    rates = _for_each("lr", lr, len(models))
    elbos = _for_each("elbo", VBD_ELBO() if elbo is None else elbo, len(models))
    for one in elbos:
        check_elbo(one)
    parts = zip(models, guides, elbos, rates, strict=True)
    runs = [begin(model, guide, own, data, optimizer, rate, device, processes) for model, guide, own, rate in parts]
    if checkpoint is not None:
        _resume(runs, Path(checkpoint), processes)
    first = max(run.epoch for run in runs)
    bar = tqdm(total=epochs, initial=first, disable=not progress, desc=f"fit {len(runs)} members", unit="epoch")
    steps = MemberSteps(runs, compile, bar.set_postfix_str)

    def take_pass(batches: Iterable[tuple[Any, ...]]) -> dict[int, dict[str, Any]]:
        is_new = max(run.epoch for run in runs) == first or not isinstance(data, Batches)
        return _one_pass(runs, steps, batches, is_new, checkpoint)

    def state() -> dict[str, Any]:
        return {"members": [run_state(run, processes) for run in runs]}

    run_epochs(
        runs, data, take_pass, state, bar, processes,
        epochs=epochs, kl_schedule=kl_schedule, lr_schedule=lr_schedule, validation=validation, patience=patience,
        callbacks=callbacks, checkpoint=checkpoint, device=device,
    )  # fmt: skip
    return runs


def _for_each(name: str, value: Any, count: int) -> list[Any]:
    if hasattr(value, "tolist"):  # an array or a tensor
        value = value.tolist()
    if not isinstance(value, Sequence):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries for {count} members: pass one for each, or one for all")
    return list(value)


def _one_pass(
    runs: Sequence[Fit],
    steps: MemberSteps,
    batches: Iterable[tuple[Any, ...]],
    check: bool,
    checkpoint: Any,
) -> dict[int, dict[str, Any]]:
    """A step of all members with each batch; the records of those that go on, by number."""
    totals = {k: Totals(run, checkpoint) for k, run in enumerate(runs) if not run.stop}
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
    warnings.warn(f"member {k} stops, and the others go on: {error}", stacklevel=6)


def _resume(runs: Sequence[Fit], path: Path, processes: Processes) -> None:
    """Put the state of a checkpoint into the runs, if there is one."""
    state = saved_state(path, processes)
    if state is None:
        return
    if "members" not in state:
        raise ValueError(f"{path} holds a run of fit: pass it to fit, or another path to fit_members")
    if (count := len(state["members"])) != len(runs):
        raise ValueError(f"{path} holds a run of {count} members, and there are {len(runs)}: pass another checkpoint path")
    members = list(zip(runs, state["members"], strict=True))
    for k, member in enumerate(members):
        refuse_other(*member, f"member {k} of {path}")
    for member in members:
        restore(*member, processes)
