"""What a run writes into its checkpoint, and how another one goes on from there."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyro_vbd.random_state import get_random_state, set_random_state
from pyro_vbd.training.checkpoint import load_checkpoint
from pyro_vbd.training.processes import Processes

if TYPE_CHECKING:
    from pyro_vbd.training.loop import Fit

__all__ = ["assign", "buffers", "restore", "resume", "run_state", "saved_state"]

logger = logging.getLogger(__name__)


def buffers(model: Any) -> dict[str, Tensor]:
    """The buffers of a model that is a module, by names that no parameter has."""
    return {f"buffer {n}": b for n, b in model.named_buffers()} if isinstance(model, nn.Module) else {}


@torch.no_grad()
def assign(parameters: dict[str, Tensor], model: Any, values: dict[str, Tensor]) -> None:
    """Put values into the parameters, and into the buffers of the model."""
    for name, value in {**parameters, **buffers(model)}.items():
        value.copy_(values[name])


def run_state(run: Fit, parameters: dict[str, Tensor], best: dict[str, Tensor], processes: Processes) -> dict[str, Any]:
    """All that the rest of a run depends on, as tensors, numbers, lists and dicts; to be called by all processes."""
    return {
        "values": {name: value.detach() for name, value in {**parameters, **buffers(run.model)}.items()},
        "best": best,
        "optimizer": run.optimizer.state_dict(),
        "random_states": processes.gathered(get_random_state()),
        "history": run.history,
        "epoch": run.epoch,
        "step": run.step,
        "best_epoch": run.best_epoch,
        "stop": run.stop,
    }


def resume(run: Fit, parameters: dict[str, Tensor], path: Path, processes: Processes) -> dict[str, Tensor]:
    """Put the state of a checkpoint into the run, if there is one; the best parameters so far.

    Raises:
        ValueError: for a checkpoint that is damaged, of another network or of several members, or not there for all
            processes.
    """
    state = saved_state(path, processes)
    if state is None:
        return {}
    if "members" in state:
        raise ValueError(f"{path} holds {len(state['members'])} members: pass it to fit_members, or another path to fit")
    return restore(run, parameters, state, path, processes)


def saved_state(path: Path, processes: Processes) -> dict[str, Any] | None:
    """What a checkpoint holds; None where there is none.

    Raises:
        ValueError: for one that is damaged, or not there for all processes.
    """
    if len(set(there := processes.gathered(path.exists()))) > 1:
        raise ValueError(f"{path} is not there for process {there.index(False)}: put it where every process can read it")
    return load_checkpoint(path, map_location="cpu") if path.exists() else None


def restore(
    run: Fit, parameters: dict[str, Tensor], state: dict[str, Any], path: Path, processes: Processes
) -> dict[str, Tensor]:
    """Put a state of :func:`run_state` into the run; the best parameters so far.

    A process that the run did not have before keeps its random state.

    Raises:
        ValueError: for a state of another network.
    """
    ours = {name: tuple(value.shape) for name, value in {**parameters, **buffers(run.model)}.items()}
    theirs = {name: tuple(value.shape) for name, value in state["values"].items()}
    if ours != theirs:
        differing = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
        raise ValueError(
            f"{path} holds another network: {differing[0]!r} has shape {theirs.get(differing[0], 'none')} there and "
            f"{ours.get(differing[0], 'none')} here; pass another checkpoint path"
        )
    assign(parameters, run.model, state["values"])
    run.optimizer.load_state_dict(state["optimizer"])
    if processes.rank < len(state["random_states"]):
        set_random_state(state["random_states"][processes.rank])
    run.history, run.epoch, run.step = state["history"], state["epoch"], state["step"]
    run.best_epoch, run.stop = state["best_epoch"], state["stop"]
    logger.info("resumed from %s at epoch %d", path, run.epoch)
    best: dict[str, Tensor] = state["best"]
    return best
