"""The same network under several priors: error, likelihood, calibration, and what is left when the removed weights go.

    python examples/compare_priors.py
    python examples/compare_priors.py --data mnist --data-dir DIR --epochs 40

Trains the network on the data under variational Bayesian dropout (vbd), variational dropout (vd), a Gaussian prior of
fixed scale (gaussian), and without a prior (deterministic), from several seeds; prints a table of means and standard
deviations over seeds, and saves it with a figure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pyro
import torch
import torch.nn.functional as F
from data import LOADERS, Split, load
from torch import Tensor, nn
from torchmetrics.functional.classification import multiclass_calibration_error
from tqdm import tqdm

import pyro_vbd as vbd
from models import convnet, lenet_300_100, mlp

THRESHOLD = 3.0
DRAWS = 100
SHARES = [0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995]


@dataclass(frozen=True)
class Setting:
    """The network of a data set and how long it is trained; chosen on validation data (``--validate``)."""

    network: Callable[[], nn.Module]
    epochs: int
    batch_size: int
    lr: float


SETTINGS = {
    "digits": Setting(lambda: mlp(64, (100, 100), 10), epochs=100, batch_size=50, lr=3e-3),
    "mnist": Setting(lenet_300_100, epochs=40, batch_size=100, lr=1e-3),
    "fashion-mnist": Setting(lenet_300_100, epochs=40, batch_size=100, lr=1e-3),
    "cifar10": Setting(convnet, epochs=40, batch_size=100, lr=1e-3),
    "svhn": Setting(convnet, epochs=40, batch_size=100, lr=1e-3),
}

PRIORS: dict[str, Callable[[], vbd.priors.Prior] | None] = {
    "vbd": vbd.priors.GaussianUniform,
    "vd": vbd.priors.LogUniform,
    "gaussian": lambda: vbd.priors.Gaussian(1.0),
    "deterministic": None,
}

COLUMNS = {
    "error": "error %",
    "nll": "NLL",
    "calibration": "ECE %",
    "removed": "log alpha > 3, %",
    "error_after": "error after, %",
    "seconds": "seconds",
}


def train_bayesian(
    prior: vbd.priors.Prior, setting: Setting, split: Split, seed: int, device: torch.device, tick: Callable[[], Any]
) -> dict[str, Any]:
    """Train under a prior; metrics of the posterior predictive, and of the mean network by share of weights removed."""
    pyro.set_rng_seed(seed)
    model = vbd.Classifier(setting.network(), prior, num_data=len(split.x)).to(device)
    guide = vbd.VBDGuide(model)
    ramp = setting.epochs // 4
    start = time.perf_counter()
    vbd.fit(
        model,
        guide,
        vbd.Batches(split.x, split.y, batch_size=setting.batch_size),
        epochs=setting.epochs,
        lr=setting.lr,
        kl_schedule=vbd.schedules.kl_ramp(ramp // 4, ramp),
        lr_schedule=vbd.schedules.linear_decay(0.5),
        callbacks=[lambda run: tick()],
        progress=False,
    )
    seconds = time.perf_counter() - start
    probs = vbd.predict(model, guide, split.x_eval, num_samples=DRAWS).probs
    log_alpha = {site: value.cpu() for site, value in guide.log_alpha().items()}
    net = vbd.point_network(model, guide)
    return {
        **scores(probs, split.y_eval),
        "removed": 100 * vbd.sparsity(guide, THRESHOLD),
        "error_after": error(vbd.point_network(model, guide, THRESHOLD), split),
        "seconds": seconds,
        "curve": removal_curve(net, {site: -value for site, value in log_alpha.items()}, split),
        "log_alpha": torch.cat([value.flatten() for value in log_alpha.values()]).clamp(-20, 40),
        "probs": probs.cpu(),
    }


def train_deterministic(
    setting: Setting, split: Split, seed: int, device: torch.device, tick: Callable[[], Any]
) -> dict[str, Any]:
    """The same network, optimizer and schedules on the likelihood alone; weights are removed by magnitude."""
    pyro.set_rng_seed(seed)
    net = setting.network().to(device)
    optimizer = torch.optim.Adam(net.parameters(), lr=setting.lr, fused=True)
    decay = vbd.schedules.linear_decay(0.5)
    batches = vbd.Batches(split.x, split.y, batch_size=setting.batch_size)
    start = time.perf_counter()
    for epoch in range(setting.epochs):
        optimizer.param_groups[0]["lr"] = setting.lr * decay(epoch, setting.epochs)
        for x, y in batches:
            optimizer.zero_grad()
            F.cross_entropy(net(x), y).backward()
            optimizer.step()
        tick()
    seconds = time.perf_counter() - start
    with torch.no_grad():
        probs = net(split.x_eval).softmax(-1)
    magnitude = {name: p.detach().abs().cpu() for name, p in net.named_parameters() if p.dim() > 1}
    return {
        **scores(probs, split.y_eval),
        "seconds": seconds,
        "curve": removal_curve(net, magnitude, split),
        "probs": probs.cpu(),
    }


def scores(probs: Tensor, y: Tensor) -> dict[str, float]:
    """Error and expected calibration error (15 bins) in per cent, negative log-likelihood in nats per datum."""
    return {
        "error": 100 * float((probs.argmax(-1) != y).float().mean()),
        "nll": float(F.nll_loss(probs.clamp_min(1e-12).log(), y)),
        "calibration": 100 * float(multiclass_calibration_error(probs, y, num_classes=probs.size(-1), n_bins=15)),
    }


@torch.no_grad()
def error(net: nn.Module, split: Split) -> float:
    """Test error in per cent."""
    net.eval()
    wrong = sum(int((net(x).argmax(-1) != y).sum()) for x, y in vbd.Batches(split.x_eval, split.y_eval, batch_size=1000))
    return 100 * wrong / len(split.y_eval)


@torch.no_grad()
def removal_curve(net: nn.Module, relevance: dict[str, Tensor], split: Split) -> list[float]:
    """Error with the least relevant share of the weights at 0, for each of SHARES."""
    ranked = torch.cat([value.flatten() for value in relevance.values()]).sort().values
    kept = {name: net.get_parameter(name).clone() for name in relevance}
    errors = []
    for share in SHARES:
        cut = ranked[min(int(share * len(ranked)), len(ranked) - 1)]
        for name, value in relevance.items():
            net.get_parameter(name).copy_(kept[name] * (value >= cut).to(kept[name]))
        errors.append(error(net, split))
    for name, value in kept.items():
        net.get_parameter(name).copy_(value)
    return errors


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Mean and standard deviation over seeds, a line for each prior."""
    lines = [f"{'':<15}" + "".join(f"{title:>20}" for title in COLUMNS.values())]
    for name, runs in results.items():
        cells = [spread([run[column] for run in runs if column in run]) for column in COLUMNS]
        lines.append(f"{name:<15}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def spread(values: list[float]) -> str:
    if not values:
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{statistics.mean(values):.3f} +- {statistics.stdev(values):.3f}"


def figure(results: dict[str, list[dict[str, Any]]], y: Tensor, title: str) -> plt.Figure:
    """What removal costs, where log alpha lies, and how calibrated the probabilities are."""
    drawing, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.5), constrained_layout=True)
    for name, runs in results.items():
        curve = [statistics.mean(values) for values in zip(*(run["curve"] for run in runs), strict=True)]
        remaining = [100 * (1 - share) for share in SHARES]
        left.plot(remaining, curve, marker=".", label=name)
        if "log_alpha" in runs[0]:
            middle.hist(runs[0]["log_alpha"].numpy(), bins=80, histtype="step", density=True)
        confidence, accuracy = reliability(runs[0]["probs"], y)
        right.plot(confidence, accuracy, marker=".")
    left.set(xscale="log", yscale="log", xlabel="weights kept, %", ylabel="error, %", title="What removal costs")
    left.invert_xaxis()
    middle.axvline(THRESHOLD, color="grey", linestyle=":")
    middle.set(yscale="log", ylabel="density", xlabel=r"$\log\alpha$, clipped at 40")
    middle.set(title="Dropout rates (removed: beyond 3)")
    right.plot([0, 1], [0, 1], color="grey", linestyle=":")
    right.set(xlabel="confidence", ylabel="accuracy", title="Calibration")
    drawing.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=len(results), frameon=False)
    drawing.suptitle(title)
    return drawing


def reliability(probs: Tensor, y: Tensor, bins: int = 10) -> tuple[list[float], list[float]]:
    """Mean confidence and accuracy in bins of equal numbers of data."""
    confidence, label = probs.max(-1)
    order = confidence.argsort()
    right = (label == y.cpu()).float()
    parts = order.chunk(bins)
    return [float(confidence[part].mean()) for part in parts], [float(right[part].mean()) for part in parts]


def write(path: Path, save: Callable[[Path], Any]) -> None:
    """Write a file whole: under another name first."""
    temporary = path.with_name(f".{path.name}")
    save(temporary)
    os.replace(temporary, path)


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=LOADERS, default="digits")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where torchvision finds or puts its files")
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=list(PRIORS))
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0")
    parser.add_argument("--epochs", type=int, help="default: %s" % {k: v.epochs for k, v in SETTINGS.items()})
    parser.add_argument("--threads", type=int, help="default: 1 for digits, where more only wait; else torch's own choice")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--out", type=Path, default=Path("out/compare_priors"))
    parser.add_argument("--validate", action="store_true", help="evaluate on a sixth of the training set instead")
    return parser.parse_args(None if arguments is None else list(arguments))


def main() -> None:
    options = parse()
    if threads := options.threads or (1 if options.data == "digits" else 0):
        torch.set_num_threads(threads)
    default = SETTINGS[options.data]
    setting = Setting(default.network, options.epochs or default.epochs, default.batch_size, default.lr)
    split = load(options.data, options.data_dir, options.validate)
    split = Split(*(part.to(options.device) for part in vars(split).values()))
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in options.priors}
    with tqdm(total=len(results) * options.seeds * setting.epochs, unit="epoch") as bar:
        for seed in range(options.seeds):
            for name, runs in results.items():
                bar.set_description(f"{name}, seed {seed}")
                make = PRIORS[name]
                if make is None:
                    runs.append(train_deterministic(setting, split, seed, options.device, bar.update))
                else:
                    runs.append(train_bayesian(make(), setting, split, seed, options.device, bar.update))
    held_out = "validation" if options.validate else "test"
    title = f"{options.data}, {len(split.x)} training and {len(split.x_eval)} {held_out} data, {options.seeds} seeds"
    print(f"{title}, {setting.epochs} epochs, {options.device}, torch {torch.__version__}, pyro {pyro.__version__}, "
          f"{platform.machine()}, {torch.get_num_threads()} threads\n\n{table(results)}\n")  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    drawing = figure(results, split.y_eval, title)
    write(options.out / f"{options.data}.png", lambda path: drawing.savefig(path, dpi=120, format="png"))
    numbers = {
        name: [{key: value for key, value in run.items() if not isinstance(value, Tensor)} for run in runs]
        for name, runs in results.items()
    }
    write(options.out / f"{options.data}.json", lambda path: path.write_text(json.dumps(numbers, indent=1)))
    print(f"figure: {options.out / f'{options.data}.png'}, numbers: {options.out / f'{options.data}.json'}")


if __name__ == "__main__":
    main()
