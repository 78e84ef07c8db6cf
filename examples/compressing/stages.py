"""The stages of a compression: plain training, units cut by gates, weights removed by their dropout rates."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyro
import torch
from reporting import write
from torch import Tensor, nn

import pyro_vbd as vbd
from compressing.figures import snapshots
from compressing.settings import Setting
from pyro_vbd.compression import Report, Sweep

__all__ = ["Data", "Run", "Sparse", "error", "plain", "pruned", "without_closed_gates"]

#: Thresholds on log alpha of weights that are swept over, below the 3 at which weights go first.
THRESHOLDS = (-5.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)


@dataclass(frozen=True)
class Data:
    """Training data; validation data, by whose error all is chosen; test data, which nothing is chosen on."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor
    x_test: Tensor
    y_test: Tensor

    def batches(self, size: int) -> vbd.Batches:
        return vbd.Batches(self.x, self.y, batch_size=size)


@dataclass(frozen=True)
class Run:
    """How it is run."""

    seed: int
    compile: bool
    #: Where checkpoints are kept, their names begun with; None for none.
    keep: Path | None
    progress: bool = True

    def checkpoint(self, stage: str) -> Path | None:
        return None if self.keep is None else self.keep.with_name(f"{self.keep.name}-{stage}.checkpoint")


@dataclass(frozen=True)
class Sparse:
    """The network whose weights were removed, and how."""

    network: nn.Module
    report: Report
    #: log alpha of all weights at the end of the first run, and of those left at the end of the second.
    log_alpha: tuple[Tensor, Tensor]
    swept: Sweep
    threshold: float
    #: Of the first run, with pictures of the first layer.
    history: list[dict[str, Any]]


@torch.no_grad()
def error(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """In per cent."""
    net.eval()
    wrong = sum(int((net(a).argmax(-1) != b).sum()) for a, b in vbd.Batches(x, y, batch_size=1000, shuffle=False))
    return 100.0 * wrong / len(y)


def plain(setting: Setting, data: Data, run: Run) -> nn.Module:
    """The network trained as one trains networks: what the others are measured by, and begin with."""
    pyro.set_rng_seed(run.seed)
    net = setting.network().to(data.x.device)
    path = run.checkpoint("plain")
    if path is not None and path.exists():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net
    vbd.fine_tune(net, data.batches(setting.batch_size), epochs=setting.plain_epochs, lr=setting.lr, progress=run.progress)
    if path is not None:
        write(path, lambda path: torch.save(net.state_dict(), path))
    return net


def without_closed_gates(net: nn.Module, weight: float, setting: Setting, data: Data, run: Run) -> tuple[nn.Module, Report]:
    """The network without the units whose gates close under a KL of this weight, trained on."""
    pyro.set_rng_seed(run.seed)
    gated = vbd.add_gates(net, setting.gates, inputs=data.x[:2])
    model = vbd.Classifier(gated, vbd.priors.GaussianUniform(), num_data=len(data.x), where=vbd.Gate)
    guide = vbd.VBDGuide(model, init_log_var=-9.0)
    vbd.fit(
        model,
        guide,
        data.batches(setting.batch_size),
        epochs=setting.gate_epochs,
        optimizer=two_rates(guide, setting.lr),
        elbo=vbd.VBD_ELBO(weight, site_weights=setting.gate_factors),
        kl_schedule=vbd.schedules.kl_ramp(0.0, 0.3 * setting.gate_epochs),
        lr_schedule=vbd.schedules.linear_decay(),
        checkpoint=run.checkpoint(f"gates-{weight:g}"),
        progress=run.progress,
    )
    small, report = vbd.compress(model, guide)
    batches = data.batches(setting.batch_size)
    vbd.fine_tune(small, batches, epochs=setting.tuning_epochs, lr=setting.lr, progress=run.progress)
    return small, report


def pruned(net: nn.Module, max_error: float, setting: Setting, data: Data, run: Run) -> Sparse:
    """The network without the weights whose dropout rates grow large, trained on under the mask, and cut.

    The KL's weight goes on growing past the bound until halfway. Then the weights with log alpha > 3 go, and those that
    are left are trained on under a tenth of the KL, which makes up for what they paid. Of them go those beyond the lowest
    threshold whose validation error is at most ``max_error``, in per cent. What is then left is cut, and trained plainly
    if that does not raise its validation error.
    """
    pyro.set_rng_seed(run.seed)
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=len(data.x)).to(data.x.device)
    guide = vbd.VBDGuide(model, init_log_var=-10.0)
    epochs = setting.weight_epochs
    shared: dict[str, Any] = {
        "lr": setting.lr, "lr_schedule": vbd.schedules.linear_decay(), "compile": run.compile, "progress": run.progress
    }  # fmt: skip
    first = vbd.fit(
        model,
        guide,
        data.batches(setting.batch_size),
        epochs=epochs,
        elbo=vbd.VBD_ELBO(estimator="local"),  # in convolutions too: the figures in docs/compression.md are its
        kl_schedule=vbd.schedules.piecewise(
            (0.025 * epochs, 0.0), (0.1 * epochs, min(1.0, setting.kl_weight)), (0.5 * epochs, setting.kl_weight)
        ),
        callbacks=[snapshots(epochs)],
        checkpoint=run.checkpoint("weights"),
        **shared,
    )
    before = log_alpha(guide)
    vbd.restrict(guide, vbd.masks(guide))
    vbd.fit(
        model,
        guide,
        data.batches(setting.batch_size),
        epochs=setting.refit_epochs,
        elbo=vbd.VBD_ELBO(kl_weight=0.1, estimator="local"),
        checkpoint=run.checkpoint("refit"),
        **shared,
    )
    held_out = vbd.Batches(data.x_val, data.y_val, batch_size=1000, shuffle=False)
    swept = vbd.sweep(model, guide, held_out, THRESHOLDS)
    chosen = pick(swept.points, max_error / 100.0)
    small, report = vbd.compress(model, guide, chosen.threshold)
    if setting.last_epochs:
        tuned = copy.deepcopy(small)
        batches = data.batches(setting.batch_size)
        vbd.fine_tune(tuned, batches, epochs=setting.last_epochs, lr=setting.lr, progress=run.progress)
        small = min(tuned, small, key=lambda net: error(net, data.x_val, data.y_val))
    return Sparse(small, report, (before, log_alpha(guide)), swept, chosen.threshold, first.history)


def two_rates(guide: vbd.VBDGuide, lr: float) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    """Adam that moves gates ten times as fast as weights: their log variances have far to go."""
    gates = {id(parameter) for parameter in guide.parameters()}

    def make(parameters: list[Tensor]) -> torch.optim.Optimizer:
        groups = [[p for p in parameters if (id(p) in gates) == is_gate] for is_gate in (True, False)]
        rates = 10.0 * lr, lr
        return torch.optim.Adam([{"params": p, "lr": rate} for p, rate in zip(groups, rates, strict=True)], fused=True)

    return make


def log_alpha(guide: vbd.VBDGuide) -> Tensor:
    """Of all weights that have not been removed, as one vector."""
    values = torch.cat([value.flatten() for value in guide.log_alpha().values()]).cpu()
    return values[values.isfinite()]


def pick(points: Sequence[Any], max_error: float) -> Any:
    """The point of the highest ratio whose error is at most that; of the lowest error, where none is that good."""
    good = [point for point in points if point.error <= max_error]
    return max(good, key=lambda point: point.ratio) if good else min(points, key=lambda point: (point.error, -point.ratio))
