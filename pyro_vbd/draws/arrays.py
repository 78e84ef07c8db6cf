"""What ArviZ's groups hold, as tensors with the draws in front, put together from the runs of a model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_vbd.draws.runs import DrawRuns

__all__ = ["BY_DATUM", "BY_DRAW", "draw_arrays"]

#: Groups that hold something of each draw.
BY_DRAW = ("posterior", "log_prior", "sample_stats")
#: Groups that hold something of each datum.
BY_DATUM = ("log_likelihood", "posterior_predictive", "observed_data")


def draw_arrays(
    runs: DrawRuns,
    num_samples: int,
    groups: Collection[str],
    sites: Collection[str] = (),
    chosen: Tensor | None = None,
    tick: Callable[[int], Any] = lambda count: None,
) -> dict[str, dict[str, Tensor]]:
    """The groups of draws, densities and observations of :func:`~pyro_vbd.to_arviz`.

    Args:
        runs: the model and the guide on the data.
        num_samples: S, the number of draws.
        groups: which of ``BY_DRAW`` and ``BY_DATUM`` to make.
        sites: the latents in ``"posterior"``. One that stands at a point is a view of one value.
        chosen: indices, in order, of the data in the groups of ``BY_DATUM``; all by default.
        tick: told how many data times draws have been seen, after each run.

    Returns:
        Tensors on the CPU by group and name, with S in front, or 1 in ``"observed_data"``.
    """
    blocks: dict[str, dict[str, list[Tensor]]] = {group: defaultdict(list) for group in groups}
    chosen = torch.arange(runs.num_data, device="cpu") if chosen is None else chosen
    joint = torch.zeros(num_samples, dtype=torch.float64, device="cpu")

    def add(group: str, values: Mapping[str, Tensor], index: Tensor | None = None) -> None:
        for name, value in values.items():
            axis = None if index is None else _axis(runs, group, name)
            part = value if axis is None else value.index_select(axis, index.to(value.device))  # type: ignore[union-attr]
            blocks[group][name].append(part.cpu())

    for run in runs(num_samples):
        if run.data.start == 0:  # what is of the draws alone
            log_prior = run.log_prior()
            joint[run.draws] += torch.stack(list(log_prior.values())).sum(0).cpu()
            if "posterior" in groups:
                add("posterior", {name: run.latents()[name] for name in sites if name not in runs.points})
            if "log_prior" in groups:
                add("log_prior", log_prior)
            if "sample_stats" in groups:
                add("sample_stats", {"log_q": run.log_q()})
        log_likelihood = run.log_likelihood()
        for name, value in log_likelihood.items():
            if name in runs.held and run.data.start > 0:  # counts once, not with each batch
                continue
            joint[run.draws] += value.reshape(len(value), -1).sum(1, dtype=torch.float64).cpu()
        index = chosen[(chosen >= run.data.start) & (chosen < run.data.stop)] - run.data.start
        if "log_likelihood" in groups:
            add(
                "log_likelihood",
                {n: v for n, v in log_likelihood.items() if n in runs.targets or runs.data_plate(n)},
                index,
            )
        if "posterior_predictive" in groups:
            add("posterior_predictive", runs.predictive(run), index)
        if "observed_data" in groups and run.draws.start == 0:
            add("observed_data", {n: v for n, v in run.observed().items() if n in runs.targets}, index)
        tick((run.draws.stop - run.draws.start) * (run.data.stop - run.data.start))

    found: dict[str, dict[str, Tensor]] = {}
    for group in groups:
        found[group] = {name: _join(parts, _axis(runs, group, name), runs) for name, parts in blocks[group].items()}
        blocks[group].clear()
    if "sample_stats" in groups and runs.full_size == runs.num_data:
        found["sample_stats"]["lp"] = joint
    if "posterior" in groups:
        for name in (name for name in sites if name in runs.points):
            value = runs.latents[name]["value"].cpu()
            found["posterior"][name] = value.expand(num_samples, *value.shape)
    return found


def _axis(runs: DrawRuns, group: str, name: str) -> int | None:
    """The dimension of the data, counted from the right, in a variable of a group; None where there is none."""
    plate = runs.data_plate(name) if group in BY_DATUM else None
    if plate is None:
        return None
    return int(plate.dim) - (0 if group == "log_likelihood" else runs.observed[name]["fn"].event_dim)


def _join(parts: list[Tensor], axis: int | None, runs: DrawRuns) -> Tensor:
    """Put blocks together that came in the order of the runs: the data of each chunk of draws, then the chunks."""
    batches = 1 if axis is None else runs.num_batches
    rows = [torch.cat(parts[i : i + batches], axis or 0) for i in range(0, len(parts), batches)]
    return torch.cat(rows) if len(rows) > 1 else rows[0]
