"""A network made smaller: units cut by gates, weights removed by their dropout rates, each with what it costs.

    python examples/compress.py
    python examples/compress.py --data mnist --net lenet-300-100 --data-dir DIR --compile
    python examples/compress.py --data mnist --net mlp-580 --data-dir DIR --compile
    python examples/compress.py --data mnist --net lenet-5 --data-dir DIR --compile
    python examples/compress.py --data cifar10 --net resnet-8 --data-dir DIR

In three stages, under the Gaussian-uniform prior: the network is trained plainly, which is what the others are measured
by; gates on its units are trained under several weights of their KL, the units of closed ones are cut out, and the
smallest network that is good enough goes on; weights are removed, and those that are left trained on. What is chosen is
chosen on a validation part of the training set; the test set is only reported. Figures, numbers and the smallest network
in three formats are saved.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pyro
import torch
from arguments import at_least_one
from compressing.figures import gates_figure, result_figure, training_figure
from compressing.settings import SETTINGS, Setting
from compressing.stages import Data, Run, plain, pruned, without_closed_gates
from compressing.summary import Row, row_of, table
from data import LOADERS, load
from reporting import write
from torch import Tensor, nn

import pyro_vbd as vbd
from pyro_vbd.compression import Report


def split(name: str, folder: Path, device: torch.device) -> Data:
    """The last sixth of the training set (of small ones a third) is for validation."""
    found = load(name, folder)
    x, y, x_test, y_test = (part.to(device) for part in vars(found).values())
    count = len(x) // (6 if len(x) > 10_000 else 3)
    return Data(x[:-count], y[:-count], x[-count:], y[-count:], x_test, y_test)


def cut_by_gates(
    first: nn.Module, rows: list[Row], setting: Setting, data: Data, run: Run
) -> tuple[nn.Module, Report | None]:
    """Networks for each weight of the gates' KL, added to the rows; the one of least work that is good enough."""
    best, best_report, least = first, None, rows[0].multiply_adds
    for weight in setting.gate_weights:
        try:
            net, report = without_closed_gates(first, weight, setting, data, run)
        except ValueError as died:
            print(f"gates, KL x {weight:g}: {died}")
            continue
        row = row_of(f"cut by gates, KL x {weight:g}", net, first, data)
        rows.append(row)
        print(f"{row.name}: validation error {row.validation_error:.2f}%, a batch {row.latency[-1].speedup:.1f}x as fast")
        if row.validation_error <= rows[0].validation_error + setting.max_loss and row.multiply_adds < least:
            best, best_report, least = net, report, row.multiply_adds
    return best, best_report


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


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=[name for name in LOADERS if name in {d for d, _ in SETTINGS}], default="digits")
    parser.add_argument("--net", help=f"default: the first of {', '.join(f'{d}: {n}' for d, n in SETTINGS)}")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where torchvision finds or puts its files")
    parser.add_argument("--epochs", type=at_least_one, help="at most so many in each stage")
    parser.add_argument("--kl-weight", type=float, help="of the weights' KL: more removes more")
    parser.add_argument("--gate-weights", type=float, nargs="*", help="of the gates' KL, tried in turn; none: no gates")
    parser.add_argument("--max-loss", type=float, help="points of validation error that gates may cost")
    parser.add_argument("--prune-loss", type=float, help="and the removal of weights, before the last training")
    parser.add_argument("--compile", action="store_true", help="train by a compiled step: pays in long runs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--resume", action="store_true", help="keep checkpoints in --out, and go on from them")
    parser.add_argument("--out", type=Path, default=Path("out/compress"))
    options = parser.parse_args(None if arguments is None else list(arguments))
    nets = [net for data, net in SETTINGS if data == options.data]
    options.net = options.net or nets[0]
    if options.net not in nets:
        parser.error(f"--net {options.net}: for {options.data} there is {', '.join(nets)}")
    if options.gate_weights and SETTINGS[options.data, options.net].gates is None:
        parser.error(f"--gate-weights: {options.net} is compressed without gates")
    return options


def setting_of(options: argparse.Namespace) -> Setting:
    """The setting of the network, with what the command line changes of it."""
    setting = SETTINGS[options.data, options.net]
    names = ("kl_weight", "max_loss", "prune_loss")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    setting = replace(setting, **given)
    if options.gate_weights is not None:
        setting = replace(setting, gate_weights=tuple(options.gate_weights))
    if options.epochs is not None:
        stages = [name for name in vars(setting) if name.endswith("_epochs")]
        setting = replace(setting, **{name: min(getattr(setting, name), options.epochs) for name in stages})
    return setting


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads)
    setting = setting_of(options)
    name = f"{options.data}-{options.net}"
    options.out.mkdir(parents=True, exist_ok=True)
    data = split(options.data, options.data_dir, options.device)
    run = Run(options.seed, options.compile, options.out / name if options.resume else None)
    print(f"{name}: {len(data.x)} training, {len(data.x_val)} validation, {len(data.x_test)} test data, "
          f"{options.device}, torch {torch.__version__}, pyro {pyro.__version__}, "
          f"{platform.machine()}, {torch.get_num_threads()} threads")  # fmt: skip

    first = plain(setting, data, run)
    rows = [row_of("plain", first, first, data)]
    narrow, gates_report = cut_by_gates(first, rows, setting, data, run)
    if gates_report is not None:
        print(f"\nThe plain network, and what gates leave of it:\n{gates_report}\n")
    sparse = pruned(narrow, rows[0].validation_error + setting.prune_loss, setting, data, run)
    rows.append(row_of("weights removed", sparse.network, first, data))
    print(f"\nWeights removed of that, log alpha > {sparse.threshold:g}:\n{sparse.report}\n\n{table(rows)}\n")

    files = export(sparse.network, data.x_test[:4], options.out / name)
    print("the last one's bytes on disk: " + ", ".join(f"{key} {value:,}" for key, value in files.items()))
    figures = {
        "training": training_figure(sparse.history, data.x.shape),
        "curve": result_figure(sparse, rows, setting.prune_loss),
        "report": sparse.report.draw(),
    }
    if len(rows) > 2:
        figures["gates"] = gates_figure(rows)
    if gates_report is not None:
        figures["gates-report"] = gates_report.draw()
    for key, figure in figures.items():
        path = options.out / f"{name}-{key}.png"
        write(path, lambda path, figure=figure: figure.savefig(path, dpi=120, format="png"))
        print(f"figure: {path}")
    numbers = {
        "setting": {k: v for k, v in vars(setting).items() if k not in {"network", "gates"}},
        "seed": options.seed,
        "threshold": sparse.threshold,
        "sweep": [vars(point) for point in sparse.swept.points],
        "networks": [row.to_dict() for row in rows],
        "bytes_on_disk": files,
        "gates": gates_report.to_dict() if gates_report is not None else None,
        "report": sparse.report.to_dict(),
    }
    path = options.out / f"{name}.json"
    write(path, lambda path: path.write_text(json.dumps(numbers, indent=1)))
    print(f"numbers: {path}")


if __name__ == "__main__":
    main()
