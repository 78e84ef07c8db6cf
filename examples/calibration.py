"""Is it calibrated? Predictive intervals, likelihood and selective prediction of VBD against what people use instead.

    python examples/calibration.py
    python examples/calibration.py --data digits iris --methods vbd vd ensemble --seeds 10
    python examples/calibration.py --data mnist --data-dir DIR

On scikit-learn's data sets: a deterministic network, a deep ensemble of five, MC dropout, and the Laplace approximation
(laplace-torch), each with its settings chosen by the likelihood of validation data within each split, and VBD as it
comes. Prints a table for each data set, in which whatever beats VBD is marked, and a list of where VBD loses; saves a
figure, and the numbers after each run.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import joblib
import torch
from arguments import at_least_one
from cells import run_cells
from reporting import write
from uncertainty.figures import figure
from uncertainty.problems import PROBLEMS, TABLES
from uncertainty.runs import METHODS, Run, run
from uncertainty.tables import losses, table


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", choices=PROBLEMS, default=list(TABLES))
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="where torchvision finds or puts its files")
    parser.add_argument("--methods", nargs="+", choices=METHODS, help="the first is compared with the others",
                        default=["vbd", "deterministic", "ensemble", "mc-dropout", "laplace-last-layer"])  # fmt: skip
    parser.add_argument("--seeds", type=at_least_one, default=5, help="splits, each with a seed of its own, from 0")
    parser.add_argument("--epochs", type=at_least_one, help="in place of each problem's own; settings multiply it")
    parser.add_argument(
        "--jobs", type=at_least_one, help="runs at once, in processes; default: as many as cores, on a GPU 1"
    )
    parser.add_argument("--threads", type=int, default=1, help="of each run; 0 for torch's choice")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--out", type=Path, default=Path("out/calibration"))
    options = parser.parse_args(None if arguments is None else list(arguments))
    if options.jobs is None:
        options.jobs = joblib.cpu_count() if options.device.type == "cpu" else 1
    return options


def compute(options: argparse.Namespace, numbers: Path) -> dict[str, dict[str, list[Run]]]:
    """The runs by data set and method, one for each split, written to a file as they end."""
    work = [(p, m, seed) for p in options.data for seed in range(options.seeds) for m in options.methods]
    rest = options.epochs, options.data_dir, options.device, options.threads
    cells = {" ".join(map(str, of)): (*of, *rest) for of in work}
    configuration = options.epochs, options.device.type
    results: dict[str, dict[str, list[Run]]] = {p: {m: [] for m in options.methods} for p in options.data}
    found = run_cells(run, cells, configuration, options.out / "runs", options.jobs)
    for (problem, method, _), (_, numbers_of_run) in zip(work, found, strict=True):
        results[problem][method].append(numbers_of_run)
        write(numbers, lambda path: path.write_text(json.dumps(results, indent=1)))
    return results


def main() -> None:
    options = parse()
    name = "mnist" if options.data == ["mnist"] else "tables"
    picture, numbers = options.out / f"{name}.png", options.out / f"{name}.json"
    results = compute(options, numbers)
    ours = options.methods[0]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "pyro-ppl", "scikit-learn", "laplace-torch"))
    print(f"{options.seeds} splits, {options.device}, {packages}, {platform.machine()}\n")
    for problem, runs in results.items():
        print(table(problem, runs, ours), end="\n\n")
    print(f"Mean +- standard deviation over splits; * better than {ours} beyond the 95% interval of the paired difference, "
          f"' better on average.\nRegression in units of the targets' standard deviation; overconf.: too sure above 0.\n\n"
          f"Where {ours} loses (*):\n{losses(results, ours)}\n")  # fmt: skip
    drawing = figure(results, ours, f"{', '.join(options.data)}; {options.seeds} splits")
    write(picture, lambda path: drawing.savefig(path, dpi=110, format="png"))
    print(f"figure: {picture}, numbers: {numbers}")


if __name__ == "__main__":
    main()
