"""A network made smaller: trained, swept over thresholds, cut, fine-tuned, exported and reported.

    python examples/compress.py
    python examples/compress.py --data mnist --net lenet-300-100 --data-dir DIR
    python examples/compress.py --data mnist --net lenet-5 --data-dir DIR
    python examples/compress.py --data cifar10 --data-dir DIR

Trains under the Gaussian-uniform prior, on weights (lenet-300-100) or on weights and gates; picks the threshold on a
validation part of the training set; prints what is left; and saves figures, numbers and the network in three formats.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pyro
import torch
from data import LOADERS, Split, load
from matplotlib.ticker import StrMethodFormatter
from torch import Tensor, nn

import pyro_vbd as vbd
from models import lenet_5_caffe, lenet_300_100, mlp, resnet

#: Thresholds on log alpha of weights that are swept over.
THRESHOLDS = (-5.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)


@dataclass(frozen=True)
class Setting:
    """A network and how it is trained; chosen on validation data."""

    network: Callable[[], nn.Module]
    #: Behind which modules gates stand; None for weights alone.
    gates: Any
    epochs: int
    batch_size: int
    lr: float
    #: The KL's weight at the end: 1 is the bound, more removes more.
    kl_weight: float = 1.0
    #: Factors of the gates' KL, by pattern of site names.
    site_weights: Any = None
    init_log_var: float = -10.0
    fine_tuning: int = 10


SETTINGS = {
    ("digits", "mlp"): Setting(lambda: mlp(64, (100, 100), 10), nn.ReLU, 100, 50, 3e-3),
    ("digits", "convnet"): Setting(lambda: small_convnet(), nn.ReLU, 60, 50, 3e-3),
    ("mnist", "lenet-300-100"): Setting(lenet_300_100, None, 200, 200, 1.4e-3, 1.4),
    ("mnist", "lenet-5"): Setting(lenet_5_caffe, nn.ReLU, 60, 100, 1e-3, site_weights={"*.1.weight": 20.0}),
    ("cifar10", "resnet"): Setting(lambda: resnet(3), ["2", "*.body.2", "*.out"], 60, 100, 1e-3),
}


def small_convnet() -> nn.Module:
    """Two convolutions and two layers for the digits' 8x8 pixels."""
    return nn.Sequential(
        nn.Conv2d(1, 20, 3), nn.ReLU(), nn.Conv2d(20, 30, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(120, 60), nn.ReLU(), nn.Linear(60, 10),
    )  # fmt: skip


class Snapshots:
    """A callback: the first layer's mean weights without the removed ones, at some epochs."""

    def __init__(self, epochs: int, count: int = 6) -> None:
        # close together at first, when most happens
        self.wanted = sorted({max(1, round(epochs ** (k / (count - 1)))) for k in range(count)})
        self.pictures: dict[int, Tensor] = {}
        self.kept: dict[int, float] = {}

    def __call__(self, run: vbd.Fit) -> None:
        if run.epoch not in self.wanted:
            return
        site = next(iter(run.guide.log_alpha()))
        mask = vbd.masks(run.guide)[site]
        self.pictures[run.epoch] = (run.guide.median()[site] * mask).cpu()
        self.kept[run.epoch] = float(mask.mean())


def split_off(split: Split) -> tuple[Split, Split]:
    """Training and validation data from the training set, and the test data, which nothing is chosen on."""
    count = len(split.x) // (6 if len(split.x) > 10_000 else 3)
    train = Split(split.x[:-count], split.y[:-count], split.x_eval, split.y_eval)
    return train, Split(split.x[-count:], split.y[-count:], split.x_eval, split.y_eval)


def train(setting: Setting, split: Split, options: argparse.Namespace) -> tuple[Any, vbd.VBDGuide, Snapshots]:
    """The posterior of the network, with gates where the setting has them."""
    pyro.set_rng_seed(options.seed)
    net = setting.network()
    if setting.gates is not None:
        net = vbd.add_gates(net, setting.gates, inputs=split.x[:2].cpu())
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=len(split.x)).to(options.device)
    guide = vbd.VBDGuide(model, init_log_var=setting.init_log_var)
    snapshots = Snapshots(setting.epochs)
    start, end = 0.025 * setting.epochs, 0.1 * setting.epochs
    warm_up = vbd.schedules.kl_ramp(start, end)

    def kl_schedule(epoch: int, epochs: int) -> float:
        """From 0 to 1 in the first tenth of the epochs, and to ``kl_weight`` at half of them."""
        further = min(1.0, max(0.0, (epoch - end) / (epochs / 2 - end)))
        return warm_up(epoch, epochs) * (1.0 + (setting.kl_weight - 1.0) * further)

    vbd.fit(
        model,
        guide,
        vbd.Batches(split.x, split.y, batch_size=setting.batch_size),
        epochs=setting.epochs,
        lr=setting.lr,
        elbo=vbd.VBD_ELBO(site_weights=setting.site_weights),
        kl_schedule=kl_schedule,
        lr_schedule=vbd.schedules.linear_decay(),
        callbacks=[snapshots],
        compile=options.compile,
        checkpoint=options.out / f"{name_of(options)}.checkpoint" if options.resume else None,
    )
    return model, guide, snapshots


@torch.no_grad()
def error(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """In per cent."""
    net.eval()
    wrong = sum(int((net(a).argmax(-1) != b).sum()) for a, b in vbd.Batches(x, y, batch_size=1000, shuffle=False))
    return 100.0 * wrong / len(y)


def training_figure(snapshots: Snapshots, shape: torch.Size, count: int = 8) -> plt.Figure:
    """The first layer as training goes on: kernels, or the weights of units as images; white is removed."""
    last = list(snapshots.pictures.values())[-1]
    strongest = last.flatten(1).norm(dim=1).argsort(descending=True)[:: max(1, len(last) // (2 * count))][:count]
    figure, axes = plt.subplots(
        len(snapshots.pictures), len(strongest), figsize=(1.1 * len(strongest) + 1.2, 1.15 * len(snapshots.pictures)),
        squeeze=False, layout="constrained",
    )  # fmt: skip
    for line, (epoch, weights) in zip(axes, snapshots.pictures.items(), strict=True):
        for axis, unit in zip(line, strongest, strict=True):
            image = weights[unit]
            image = image.mean(0) if image.dim() == 3 else image.view(-1, *shape[-2:]).mean(0)
            limit = float(image.abs().max()) or 1.0
            axis.imshow(image, cmap="RdBu", vmin=-limit, vmax=limit)
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(f"epoch {epoch}\n{100 * snapshots.kept[epoch]:.3g}% kept", rotation=0, ha="right", va="center")
    figure.suptitle("First layer: mean weights, those with log alpha > 3 removed")
    return figure


def result_figure(guide: vbd.VBDGuide, swept: Any, chosen: Any, marks: dict[str, tuple[float, float]]) -> plt.Figure:
    """Where log alpha lies, and error against ratio over thresholds."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    gates = {site for site, value in guide.log_alpha().items() if value.dim() == 1}
    for label, is_gate in (("weights", False), ("gates", True)):
        values = [value.flatten() for site, value in guide.log_alpha().items() if (site in gates) == is_gate]
        if values:
            left.hist(torch.cat(values).clamp(-12, 25).cpu().numpy(), bins=75, histtype="step", density=True, label=label)
    left.axvline(chosen.threshold, color="grey", linestyle=":", label="threshold picked")
    left.set(yscale="log", xlabel=r"$\log\alpha$, clipped", ylabel="density", title="Dropout rates")
    left.legend(frameon=False)
    ratios = [point.ratio for point in swept.points]
    right.plot(ratios, [100 * point.error for point in swept.points], marker=".", label="validation, by threshold")
    right.axhline(100 * swept.full_error, color="grey", linestyle=":", label="validation, nothing removed")
    for label, (ratio, value) in marks.items():
        right.plot([ratio], [value], marker="o", linestyle="none", label=label)
    right.set(xscale="log", yscale="log", xlabel="weights and gates over those that are kept", ylabel="error, %")
    for axis in (right.xaxis, right.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(StrMethodFormatter("{x:g}"))
    right.tick_params(axis="both", which="minor", labelsize="small")
    right.set_title("What removal costs")
    right.legend(frameon=False)
    return figure


def write(path: Path, save: Callable[[Path], Any]) -> None:
    """Write a file whole: under another name first."""
    temporary = path.with_name(f".{path.name}")
    save(temporary)
    os.replace(temporary, path)


def export(small: nn.Module, x: Tensor, path: Path) -> dict[str, int]:
    """The network in the formats whose packages are there; bytes on disk by format."""
    found = {"sparse": vbd.save_sparse(small, path.with_suffix(".sparse"))}
    found["sparse, 8 bits"] = vbd.save_sparse(small, path.with_suffix(".sparse8"), bits=8)
    for name, save in (
        ("safetensors", lambda: vbd.save_safetensors(small, path.with_suffix(".safetensors"))),
        ("onnx", lambda: vbd.save_onnx(small, path.with_suffix(".onnx"), x)),
    ):
        try:
            found[name] = save()
        except ImportError as missing:
            print(f"no {name} file: {missing}")
    return found


def name_of(options: argparse.Namespace) -> str:
    return f"{options.data}-{options.net}"


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=[name for name in LOADERS if name in {d for d, _ in SETTINGS}], default="digits")
    parser.add_argument("--net", help=f"default: the first of {', '.join(f'{d}: {n}' for d, n in SETTINGS)}")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where torchvision finds or puts its files")
    parser.add_argument("--epochs", type=int, help="default: %s" % {f"{d} {n}": s.epochs for (d, n), s in SETTINGS.items()})
    parser.add_argument("--kl-weight", type=float, help="of the KL at the end: more removes more")
    parser.add_argument(
        "--max-loss", type=float, default=0.1, help="accuracy that may be lost, in points, on validation data"
    )
    parser.add_argument("--compile", action="store_true", help="train by a compiled step: pays in long runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="keep a checkpoint in --out, and go on from it")
    parser.add_argument("--out", type=Path, default=Path("out/compress"))
    options = parser.parse_args(None if arguments is None else list(arguments))
    nets = [net for data, net in SETTINGS if data == options.data]
    options.net = options.net or nets[0]
    if options.net not in nets:
        parser.error(f"--net {options.net}: for {options.data} there is {', '.join(nets)}")
    return options


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    setting = SETTINGS[options.data, options.net]
    given = {"epochs": options.epochs, "kl_weight": options.kl_weight}
    setting = replace(setting, **{key: value for key, value in given.items() if value is not None})
    options.out.mkdir(parents=True, exist_ok=True)
    split = load(options.data, options.data_dir)
    split = Split(*(part.to(options.device) for part in vars(split).values()))
    fitted, held_out = split_off(split)
    print(f"{name_of(options)}: {len(fitted.x)} training, {len(held_out.x)} validation, {len(split.x_eval)} test data, "
          f"{setting.epochs} epochs, {options.device}, torch {torch.__version__}, pyro {pyro.__version__}, "
          f"{platform.machine()}, {torch.get_num_threads()} threads")  # fmt: skip
    model, guide, snapshots = train(setting, fitted, options)

    validation = vbd.Batches(held_out.x, held_out.y, batch_size=1000, shuffle=False)
    swept = vbd.sweep(model, guide, validation, THRESHOLDS)
    chosen = swept.pick(options.max_loss / 100.0)
    small, report = vbd.compress(model, guide, chosen.threshold)
    test = split.x_eval, split.y_eval
    errors = {"all weights": error(vbd.point_network(model, guide), *test), "cut": error(small, *test)}
    # all of the training set now: nothing is chosen any more
    batches = vbd.Batches(split.x, split.y, batch_size=setting.batch_size)
    vbd.fine_tune(small, batches, epochs=min(setting.fine_tuning, setting.epochs), lr=0.1 * setting.lr)
    errors["fine-tuned"] = error(small, *test)
    files = export(small, split.x_eval[:4], options.out / name_of(options))

    print(f"\nthreshold {chosen.threshold} (validation error {100 * chosen.error:.2f}%, with all weights "
          f"{100 * swept.full_error:.2f}%)\n\n{report}\n")  # fmt: skip
    print("test error: " + ", ".join(f"{key} {value:.2f}%" for key, value in errors.items()))
    print("bytes on disk: " + ", ".join(f"{key} {value:,}" for key, value in files.items()))
    marks = {f"test, {key}": (chosen.ratio, errors[key]) for key in ("cut", "fine-tuned")}
    figures = {
        "training": training_figure(snapshots, split.x.shape),
        "curve": result_figure(guide, swept, chosen, marks),
        "report": report.draw(),
    }
    for key, figure in figures.items():
        path = options.out / f"{name_of(options)}-{key}.png"
        write(path, lambda path, figure=figure: figure.savefig(path, dpi=120, format="png"))
        print(f"figure: {path}")
    numbers = {
        "setting": {**{k: v for k, v in vars(setting).items() if not callable(v) and k != "gates"}, "seed": options.seed},
        "threshold": chosen.threshold,
        "sweep": [vars(point) for point in swept.points],
        "test_error": errors,
        "bytes_on_disk": files,
        "report": report.to_dict(),
    }
    path = options.out / f"{name_of(options)}.json"
    write(path, lambda path: path.write_text(json.dumps(numbers, indent=1)))
    print(f"numbers: {path}")


if __name__ == "__main__":
    main()
