"""Training of one model: what examples need and users expect around ``elbo(model, guide)``, and no more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyro
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from pyro_vbd.compiling.compiled_elbo import compile as compile_loss
from pyro_vbd.elbo import VBD_ELBO
from pyro_vbd.guide import VBDGuide
from pyro_vbd.training.batches import Batches
from pyro_vbd.training.epochs import run_epochs
from pyro_vbd.training.one_pass import Report, Step, common_step, one_pass
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.resume import buffers, resume, run_state
from pyro_vbd.training.run import Callback, Fit
from pyro_vbd.training.schedules import Schedule, constant
from pyro_vbd.training.start import begin, check_arguments, check_elbo

__all__ = ["fit"]

#: Compiled steps between two looks at their losses.
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

    :func:`~pyro_vbd.fit_members` does the same for several models at once.

    Where torch.distributed has been started (by ``torchrun`` and ``init_process_group``), the processes train together:
    gradients are means weighted by the data of each process in the step, so that the KL counts once; parameters start as
    the first process's and stay the same in all; noise differs. ``Batches`` are shared out among the processes; of a
    DataLoader each process passes its own part (DistributedSampler), which need not be as long as that of others. The first
    process writes the checkpoint, which all must be able to read. Buffers (BatchNorm's) end as the first one's.

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
        lr_schedule: multiplier of the learning rate by epoch, such as ``schedules.linear_decay(0.5)``. The rate of each
            epoch is set by it: one that a callback assigns holds no longer than to the end of the callbacks.
        validation: held-out batches; adds ``validation``, the mean negative log-likelihood per datum at the posterior
            medians, to the history. Parameters end at the epoch where it was lowest if ``patience`` is given.
        patience: stop after this many epochs without a lower validation loss.
        callbacks: functions of the :class:`Fit`, called after each epoch, in every process; a dict that one returns joins
            the record.
        checkpoint: file to write after each epoch. Where it exists, the run goes on from it, and on CPU ends in the same
            parameters bit for bit as a run that was never interrupted, if the data come in an order that follows from
            torch's, Python's or NumPy's random state. A run that had stopped early stays as it is if this call's
            ``patience`` or a callback, asked once more, stops it there; else it goes on. Epochs, schedules, ``elbo``, data,
            ``lr`` and other settings of the optimizer may differ from the earlier call's, and those of this call count;
            the model's class, priors, ``num_data`` and fixed noise, the guide's ``alpha``, ``scale_posterior`` and masks,
            and the kind of the optimizer may not.
        seed: of all random states, set at the start of a run.
        device: where to train; model, guide and batches are moved there. Without it model and guide stay where they are,
            and batches are moved to them, unless a tensor of the batch is there already.
        compile: whether to compile the step (:func:`~pyro_vbd.compile`): on a CPU one and a half to three times as fast for
            dense networks, more under priors with much arithmetic, a quarter to a half faster for LeNet-5, no faster for a
            residual network. It takes ten seconds to two minutes at the start, and so pays in runs of some thousands of
            steps. Batches of another shape than the first, the smaller one at the end of a pass say, run as they would
            without. ``Batches`` has its values checked in the first pass only.
        progress: whether to show a bar.

    Raises:
        TypeError: for an ``elbo`` or an ``optimizer`` of another kind.
        ValueError: for no data or an iterator, arguments out of range, a checkpoint that is damaged or of another network
            or other settings, or a callback's entry of a name that the record has; with several processes, for a likelihood
            that is not scaled to the whole data set.
        FloatingPointError: when the loss is no longer finite, with the step and the site, and the parameters as before the
            step (with ``compile`` it is raised up to 50 steps later, which move no parameter); or at the end of an epoch,
            when a parameter is not. The last good checkpoint stays.
    """
    check_arguments(data, epochs, patience, validation)
    elbo = VBD_ELBO() if elbo is None else elbo
    check_elbo(elbo)
    if seed is not None:
        pyro.set_rng_seed(seed)
    processes = Processes()
    run = begin(model, guide, elbo, data, optimizer, lr, device, processes)
    processes.draw_apart()
    if checkpoint is not None:
        resume(run, Path(checkpoint), processes)
    modules = [part for part in (model, guide) if isinstance(part, nn.Module)]
    processes.copy_from_first([*run.parameters.values(), *(v for part in modules for v in part.state_dict().values())])
    bar = tqdm(total=epochs, initial=run.epoch, disable=not progress or processes.rank > 0, desc="fit", unit="epoch")
    take_step, look_every = _choose_step(run, processes, data, compile, bar.set_postfix_str)

    def take_pass(batches: Iterable[tuple[Any, ...]]) -> dict[int, dict[str, Any]]:
        record = one_pass(run, take_step, look_every, batches, processes, checkpoint)
        processes.copy_from_first(buffers(model).values())
        return {0: record}

    run_epochs(
        [run], data, take_pass, partial(run_state, run, processes), bar, processes,
        epochs=epochs, kl_schedule=kl_schedule, lr_schedule=lr_schedule, validation=validation, patience=patience,
        callbacks=callbacks, checkpoint=checkpoint, device=device,
    )  # fmt: skip
    return run


def _choose_step(
    run: Fit,
    processes: Processes,
    data: Iterable[Any],
    compile: bool,
    progress: Callable[[str], object],
) -> tuple[Step, int]:
    """How to take a step, and how many steps may pass before their losses are looked at."""
    common = partial(common_step, run, processes)
    if not compile:
        return partial(common, partial(run.elbo.report_and_grads, run.model, run.guide)), 1
    # one graph: compiling another for the smaller batch at the end of each epoch would take longer than it saves
    compiled = compile_loss(run.elbo(run.model, run.guide), 1, progress)  # type: ignore[arg-type]
    first = run.epoch

    def is_new() -> bool:  # whether the values of the data are still to be checked
        return run.epoch == first or not isinstance(data, Batches)

    def compiled_gradients(*batch: Any) -> Report:
        return compiled.gradients(*batch, check=is_new())

    if processes.size > 1:
        return partial(common, compiled_gradients), 1
    return lambda batch, *_: compiled.update(run.optimizer, *batch, check=is_new()), _LOOK_EVERY
