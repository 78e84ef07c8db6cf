"""The same network under several priors: error, likelihood, calibration, strange data, and what is left when weights go.

    python examples/compare_priors.py
    python examples/compare_priors.py --priors all --seeds 5
    python examples/compare_priors.py --data mnist --data-dir DIR --epochs 40

Trains the network on the data under each prior, and without one (deterministic), from several seeds; prints tables of
means and standard deviations over seeds with ArviZ's comparison by leave-one-out, and saves them with a figure of the
priors and of the results. Where the data set has no strange data of its own, a second network is trained without two of
its classes, and these are the strange data.

Each run is kept in a file: a comparison that was stopped goes on, and several on one folder share the work.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable
from pathlib import Path

import arviz
import joblib
import pyro
import torch
from arguments import at_least_one
from cells import run_cells
from comparison.families import DEFAULT, FAMILIES
from comparison.figures import figure
from comparison.runs import Run, data_of, run
from comparison.settings import SETTINGS
from comparison.tables import tables
from data import LOADERS
from reporting import write
from torch import Tensor
from training import Plan


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=LOADERS, default="digits")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where torchvision finds or puts its files")
    parser.add_argument("--priors", nargs="+", choices=[*FAMILIES, "all"], default=DEFAULT)
    parser.add_argument("--seeds", type=at_least_one, default=3, help="how many, from 0")
    parser.add_argument("--epochs", type=at_least_one, help="default: %s" % {k: v.epochs for k, v in SETTINGS.items()})
    parser.add_argument(
        "--jobs", type=at_least_one, help="runs at once, in processes; default: as many as cores, on a GPU 1"
    )
    parser.add_argument(
        "--members",
        type=at_least_one,
        help="seeds of a prior that are trained side by side; default: 1, on a GPU all of them",
    )
    parser.add_argument(
        "--threads", type=int, help="of each run; default: 1 with several jobs or digits, else as torch does"
    )
    parser.add_argument("--compile", action="store_true", help="train by compiled steps: pays in long runs")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--out", type=Path, default=Path("out/compare_priors"))
    parser.add_argument("--validate", action="store_true", help="evaluate on a sixth of the training set instead")
    options = parser.parse_args(None if arguments is None else list(arguments))
    if "all" in options.priors:
        options.priors = list(FAMILIES)
    if options.jobs is None:
        options.jobs = joblib.cpu_count() if options.device.type == "cpu" else 1
    if options.members is None:
        options.members = 1 if options.device.type == "cpu" else options.seeds
    if options.threads is None:
        options.threads = 1 if options.jobs > 1 or options.data == "digits" else 0
    return options


def compute(options: argparse.Namespace, plan: Plan) -> dict[str, list[Run]]:
    """The runs of each prior, by seed; the slowest kind begins first."""
    data = (options.data, options.data_dir, options.validate)
    data_of(*data)  # what must be fetched is fetched once
    seeds = [tuple(range(options.seeds))[i : i + options.members] for i in range(0, options.seeds, options.members)]
    work = {f"{name} {' '.join(map(str, some))}": (name, some) for some in seeds for name in options.priors}
    cells = {cell: (*of, plan, data, options.device, options.threads) for cell, of in work.items()}
    configuration = options.data, options.validate, plan, options.device.type, options.members
    results: dict[str, list[Run]] = {name: [] for name in options.priors}
    for cell, found in run_cells(run, cells, configuration, options.out / "runs", options.jobs):
        results[work[cell][0]] += found["runs"]
    return results


def main() -> None:
    options = parse()
    setting = SETTINGS[options.data]
    plan = Plan(options.epochs or setting.epochs, setting.batch_size, setting.lr, options.compile)
    results = compute(options, plan)
    split, foreign = data_of(options.data, options.data_dir, options.validate)
    strange = f"classes {setting.held_out}, held out of a second training," if setting.held_out else "grey CIFAR-10"
    if not setting.held_out and foreign is None:
        strange = "no strange data at hand,"
    held_out = "validation" if options.validate else "test"
    title = f"{options.data}, {len(split.x)} training and {len(split.x_eval)} {held_out} data, {options.seeds} seeds"
    print(f"{title}, {plan.epochs} epochs, {options.device}, torch {torch.__version__}, pyro {pyro.__version__}, arviz "
          f"{arviz.__version__}, {platform.machine()}, {options.jobs} jobs\n\n{tables(results, strange)}\n")  # fmt: skip
    picture, numbers = options.out / f"{options.data}.png", options.out / f"{options.data}.json"
    plain = {name: [_plain(found) for found in runs] for name, runs in results.items()}
    write(numbers, lambda path: path.write_text(json.dumps(plain, indent=1)))
    drawing = figure(results, split.y_eval, title)
    write(picture, lambda path: drawing.savefig(path, dpi=110, format="png"))
    print(f"figure: {picture}, numbers: {numbers}")


def _plain(found: Run) -> Run:
    """What JSON can hold of a run."""
    return {key: value for key, value in found.items() if not isinstance(value, Tensor)}


if __name__ == "__main__":
    main()
