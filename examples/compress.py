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
import platform
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyro
import torch
from compressing.figures import Snapshots, result_figure, training_figure
from compressing.settings import SETTINGS, Setting
from data import LOADERS, Split, load
from reporting import write
from torch import Tensor, nn

import pyro_vbd as vbd

#: Thresholds on log alpha of weights that are swept over.
THRESHOLDS = (-5.0, -4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0)


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
    epochs = setting.epochs
    snapshots = Snapshots(epochs)
    # the bound itself after a tenth of the epochs, and from half of them on more than it
    kl_schedule = vbd.schedules.piecewise((0.025 * epochs, 0.0), (0.1 * epochs, 1.0), (0.5 * epochs, setting.kl_weight))
    vbd.fit(
        model,
        guide,
        vbd.Batches(split.x, split.y, batch_size=setting.batch_size),
        epochs=epochs,
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
