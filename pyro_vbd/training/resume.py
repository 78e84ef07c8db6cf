"""What a run writes into its checkpoint, and how another one goes on from there."""

from __future__ import annotations

import inspect
import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from pyro_vbd.network import networks_in
from pyro_vbd.random_state import get_random_state, set_random_state
from pyro_vbd.training.checkpoint import load_checkpoint
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.run import Fit, module_parameters
from pyro_vbd.training.settings import differing_setting, run_settings

__all__ = ["assign", "buffers", "refuse_other", "restore", "resume", "run_state", "saved_state"]

logger = logging.getLogger(__name__)

_MEND = "pass another checkpoint path, or delete it to start anew"


def buffers(model: Any) -> dict[str, Tensor]:
    """The buffers of a model that is a module, by names that no parameter has."""
    return {f"buffer {n}": b for n, b in model.named_buffers()} if isinstance(model, nn.Module) else {}


@torch.no_grad()
def assign(run: Fit, values: dict[str, Tensor]) -> None:
    """Put values into what has their names: parameters, and buffers of the model."""
    held = _values(run)
    for name, value in values.items():
        held[name].copy_(value)


def run_state(run: Fit, processes: Processes) -> dict[str, Any]:
    """All that the rest of a run depends on, as tensors, numbers, lists and dicts; to be called by all processes."""
    return {
        "settings": run_settings(run),
        "values": {name: value.detach() for name, value in _values(run).items()},
        "best": run.best,
        "optimizer": run.optimizer.state_dict(),
        "random_states": processes.gathered(get_random_state()),
        "history": run.history,
        "epoch": run.epoch,
        "step": run.step,
        "best_epoch": run.best_epoch,
        "stop": run.stop,
        "failure": run.failure,
    }


def resume(run: Fit, path: Path, processes: Processes) -> None:
    """Put the state of a checkpoint into the run, if there is one.

    Raises:
        ValueError: for a checkpoint that is damaged, of another run (see :func:`refuse_other`) or of members, or not there
            for all processes.
    """
    state = saved_state(path, processes)
    if state is None:
        return
    if "members" in state:
        raise ValueError(f"{path} holds {len(state['members'])} members: pass it to fit_members, or another path to fit")
    refuse_other(run, state, str(path))
    restore(run, state, processes)


def saved_state(path: Path, processes: Processes) -> dict[str, Any] | None:
    """What a checkpoint holds; None where there is none.

    Raises:
        ValueError: for one that is damaged, or not there for all processes.
    """
    if len(set(there := processes.gathered(path.exists()))) > 1:
        raise ValueError(f"{path} is not there for process {there.index(False)}: put it where every process can read it")
    return load_checkpoint(path, map_location="cpu") if path.exists() else None


def refuse_other(run: Fit, state: dict[str, Any], source: str) -> None:
    """Refuse a state of :func:`run_state` that this run cannot go on from; ``source`` says where it lies.

    Raises:
        ValueError: for a state of an earlier version, of other settings (:func:`run_settings`) or another network, or of a
            guide whose fixed alphas or masks have other values.
    """
    if "failure" not in state:
        raise ValueError(f"{source} holds no run of this version of pyro_vbd; {_MEND}")
    if difference := differing_setting(state["settings"], run_settings(run)):
        raise ValueError(f"{source} holds a run of other settings: {difference}; {_MEND}")
    ours, theirs = _values(run), state["values"]
    for name in sorted({*ours, *theirs}):
        there, here = (str(tuple(v[name].shape)) if name in v else "none" for v in (theirs, ours))
        if there != here:
            raise ValueError(
                f"{source} holds another network or guide: {name!r} has shape {there} there and {here} here; {_MEND}"
            )
    for name, value in _fixed(run.guide).items():
        if not torch.equal(theirs[name].to(value), value):
            raise ValueError(f"{source} holds a run of another guide: {name!r} has other values there than here; {_MEND}")


def restore(run: Fit, state: dict[str, Any], processes: Processes) -> None:
    """Put a state that :func:`refuse_other` lets pass into the run.

    The optimizer keeps the settings that it has been made with now. A process that the run did not have before keeps its
    random state.
    """
    _load_optimizer(run.optimizer, state["optimizer"])  # first: torch may refuse its groups
    assign(run, state["values"])
    if processes.rank < len(state["random_states"]):
        set_random_state(state["random_states"][processes.rank])
    run.history, run.epoch, run.step = state["history"], state["epoch"], state["step"]
    run.best_epoch, run.best = state["best_epoch"], state["best"]
    run.stop, run.failure = state["stop"], state["failure"]
    logger.info("resumed at epoch %d", run.epoch)


def _values(run: Fit) -> dict[str, Tensor]:
    return {**run.parameters, **_frozen(run), **buffers(run.model), **_fixed(run.guide)}


def _frozen(run: Fit) -> dict[str, Tensor]:
    """Parameters that are not trained, but for the values that the means of Bayesian weights have started from."""
    starts = {id(network.net.get_parameter(name)) for network in networks_in(run.model) for name in network.priors}
    named = module_parameters(run.model, run.guide)
    return {name: p for name, p in named.items() if name not in run.parameters and id(p) not in starts}


def _fixed(guide: nn.Module) -> dict[str, Tensor]:
    """What a guide was told and does not learn: fixed alphas, masks."""
    state = guide.state_dict(keep_vars=True)
    return {f"guide.{name}": value for name, value in state.items() if not isinstance(value, nn.Parameter)}


def _load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    settings = inspect.signature(type(optimizer)).parameters  # other entries of a group are state, as Prodigy's d is
    for saved, group in zip(state["param_groups"], optimizer.param_groups, strict=False):  # torch refuses another number
        saved.update({name: value for name, value in group.items() if name in settings and name != "params"})
    optimizer.load_state_dict(state)
