"""From a model and its posterior to a smaller plain network and a report of what was removed."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyro_vbd.compression.cut import cut
from pyro_vbd.compression.example_inputs import example_inputs
from pyro_vbd.compression.latency import latencies
from pyro_vbd.compression.multiply_adds import multiply_adds
from pyro_vbd.compression.report import Report, layer_reports, total_bytes
from pyro_vbd.compression.sparse_file import save_sparse
from pyro_vbd.guide import VBDGuide
from pyro_vbd.relevance import gate_sites, masks, network_of, point_network

__all__ = ["compress"]


@torch.no_grad()
def compress(
    model: Any,
    guide: VBDGuide,
    threshold: float | Mapping[str, float] = 3.0,
    gate_threshold: float = 0.0,
    *,
    per: str = "weight",
    kept: Mapping[str, Tensor] | None = None,
    inputs: Any = None,
    keep: Sequence[str] = (),
    allow_dead: bool = False,
    batch_sizes: Sequence[int] = (1, 128),
) -> tuple[nn.Module, Report]:
    """A smaller network that computes what the posterior means do without the weights beyond a threshold.

    Weights and gates with a large :math:`\\log\\alpha` become 0 (:func:`~pyro_vbd.masks`), and units, channels, inputs and
    heads that then have no effect are cut out (:func:`~pyro_vbd.compression.cut`), so that the outputs stay the same.

    Example::

        small, report = vbd.compress(model, guide, threshold=3.0)  # print the report: it is a table

    Args:
        model: a ``Classifier``, a ``Regressor`` or a lifted network.
        guide: its posterior.
        threshold: see :func:`~pyro_vbd.masks`; choose it by :func:`~pyro_vbd.sweep` on validation data.
        gate_threshold: of gates.
        per: whether weights go one by one, or a ``"unit"`` or an ``"input"`` at a time.
        kept: masks by site to use instead of thresholds.
        inputs: example inputs of the network, where the model has not run in this process.
        keep: patterns of names of modules to leave whole.
        allow_dead: whether a layer may die whole, and its outputs become constant.
        batch_sizes: for which latencies are measured, against the network with nothing removed and gates multiplied into
            its weights; some seconds for each; none by ``()``.

    Returns:
        The network, in the mode that the model's is in, and the report.

    Raises:
        TypeError: if the model holds no network, or a module of it cannot be cut.
        ValueError: if a layer would die whole, masks are of another network, or the inputs are not known.
    """
    network = network_of(model)
    inputs = example_inputs(network) if inputs is None else inputs
    if kept is None:
        kept = masks(guide, threshold, gate_threshold, per=per)
    masked = point_network(model, guide, kept=kept)
    found = cut(masked, inputs, keep=keep, allow_dead=allow_dead)
    of_weights = {site: value for site, value in guide.log_alpha().items() if value.dim() > 1}
    count = sum(value.numel() for value in of_weights.values())
    kept_count = count - sum(int((kept[site] == 0).sum()) for site in of_weights if site in kept)
    with tempfile.TemporaryDirectory() as folder:
        sizes = [save_sparse(found.network, Path(folder) / "network", bits=bits) for bits in (None, 8)]
    work = multiply_adds(masked, inputs), multiply_adds(found.network, inputs)
    report = Report(
        layers=layer_reports(masked, found.network, found.units, work),
        bytes=total_bytes(masked),
        bytes_left=total_bytes(found.network),
        multiply_adds=(sum(work[0].values()), sum(work[1].values())),
        sparse_bytes=sizes[0],
        sparse_bytes_8=sizes[1],
        mask_ratio=count / kept_count if kept_count else math.inf if count else 1.0,
        latency=tuple(latencies(_without_gates(model, guide, inputs, keep), found.network, inputs, batch_sizes)),
        difference=found.difference,
        stayed=found.stayed,
    )
    return found.network, report


def _without_gates(model: Any, guide: VBDGuide, inputs: Any, keep: Sequence[str]) -> nn.Module:
    """The network with nothing removed, its gates multiplied into the weights: they would make it look slow."""
    whole = point_network(model, guide)
    return cut(whole, inputs, keep=keep, allow_dead=True).network if gate_sites(model) else whole
