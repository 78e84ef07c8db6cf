"""How the cost grows with width and depth: a step, its memory, compiling it, and predictions.

    python examples/benchmarks/scaling.py [--widths 100 1000 4000] [--depths 1 4 16] [--device cuda]

Dense networks with 784 inputs and 10 classes: two hidden layers of each width, and each depth at width 300. Steps are
timed in turn, and given as multiples of the plain network's of that size; a method without overhead has a flat line.
Predictions are per second and posterior draw; for the plain network, passes without gradients.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import pyro_vbd as vbd
from examples.arguments import at_least_one
from examples.benchmarks import peers  # noqa: F401  (they register themselves)
from examples.benchmarks.contenders import CONTENDERS, PLAIN
from examples.benchmarks.figures import Panel, curves
from examples.benchmarks.problems import Problem, dense, problem
from examples.benchmarks.records import save_record
from examples.benchmarks.timing import add_memory, first_steps, interleaved, machine
from examples.reporting import write

#: Data in one prediction.
PREDICTED = 1000
#: Who is looked at where nobody else is asked for.
DEFAULT = ("hand-written layers", "pyro_vbd, eager", "pyro_vbd, compiled, local", "pyro_vbd, compiled, weights")

Record = dict[str, dict[str, float]]


def measure(size: Problem, names: Sequence[str], options: argparse.Namespace, label: str) -> Record:
    """Seconds a step, seconds to the first step, and bytes of each contender."""
    steps, first = first_steps(size, names, print)
    seconds = interleaved(steps, options.rounds, options.burst, options.device, label)
    found = {name: {"seconds": seconds[name], "first": first[name]} for name in steps}
    del steps
    add_memory(size, found, print)
    return found


def predictions(size: Problem, options: argparse.Namespace, label: str) -> dict[str, float]:
    """Predictions a second: data of the plain network, and data times draws of ``predict`` on many and on few data."""
    net = size.net().to(options.device)
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), size.num_data).to(options.device)
    guide = vbd.VBDGuide(model)
    many = size.x.repeat(-(-PREDICTED // len(size.x)), 1, 1, 1)[:PREDICTED]
    few, draws = many[:10], options.draws
    work: dict[str, tuple[Callable[[], Any], int]] = {
        "plain network": (torch.no_grad()(lambda: net(many)), len(many)),
        f"predict, {len(many)} data": (lambda: vbd.predict(model, guide, many, draws), len(many) * draws),
        f"predict, {len(few)} data": (lambda: vbd.predict(model, guide, few, draws), len(few) * draws),
    }
    steps = {name: run for name, (run, _) in work.items()}
    seconds = interleaved(steps, max(options.rounds // 4, 1), 1, options.device, label, warmup=1)
    return {name: count / seconds[name] for name, (_, count) in work.items()}


def sweep(kind: str, sizes: Sequence[int], options: argparse.Namespace) -> dict[int, dict[str, Any]]:
    """All measurements along one axis."""
    found: dict[int, dict[str, Any]] = {}
    for size in sizes:
        net = dense(size, 2) if kind == "width" else dense(300, size)
        asked = problem(net, options.batch, options.device)
        label = f"{kind} {size}"
        names = [PLAIN, *options.only]
        found[size] = {"steps": measure(asked, names, options, label), "predictions": predictions(asked, options, label)}
        print_size(label, found[size])
    return found


def print_size(label: str, found: Mapping[str, Any]) -> None:
    """The numbers of one size."""
    plain = found["steps"][PLAIN]
    print(f"\n{label:<34}{'ms a step':>12}{'x plain':>10}{'first step s':>14}{'MB':>10}{'x plain':>10}")
    for name, values in found["steps"].items():
        memory = values.get("bytes", math.nan)
        print(
            f"  {name:<32}{1e3 * values['seconds']:>12.2f}{values['seconds'] / plain['seconds']:>10.2f}"
            f"{values['first']:>14.2f}{memory / 1e6:>10.1f}{memory / plain['bytes']:>10.2f}"
        )
    for name, rate in found["predictions"].items():
        print(f"  {name:<32}{rate:>12.3g} predictions a second")


def lines(found: Mapping[int, Mapping[str, Any]], value: Callable[[Record, str], float]) -> dict[str, Any]:
    """A line for each contender over the sizes at which it ran."""
    names = list(dict.fromkeys(name for at in found.values() for name in at["steps"]))
    points = {
        name: [(size, value(at["steps"], name)) for size, at in found.items() if name in at["steps"]] for name in names
    }
    return {name: tuple(zip(*pairs, strict=True)) for name, pairs in points.items()}


def draw(results: Mapping[str, Mapping[int, Mapping[str, Any]]], title: str) -> Any:
    """Ratios of time and memory, seconds to the first step, and predictions, over each axis."""
    rows = []
    for kind, found in results.items():
        rates = {
            name: (list(found), [at["predictions"][name] for at in found.values()])
            for name in next(iter(found.values()))["predictions"]
        }
        step = lines(found, lambda at, name: at[name]["seconds"] / at[PLAIN]["seconds"])
        memory = lines(found, lambda at, name: at[name].get("bytes", math.nan) / at[PLAIN]["bytes"])
        first = lines(found, lambda at, name: at[name]["first"])
        rows.append([
            Panel("A step", kind, "time / plain network's", step, "x"),
            Panel("Peak memory", kind, "bytes / plain network's", memory, "x"),
            Panel("First step (compiling)", kind, "seconds", first, "xy"),
            Panel("Prediction", kind, "data x draws a second", rates, "xy"),
        ])  # fmt: skip
    return curves(rows, title)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--widths", nargs="*", type=at_least_one, default=[100, 200, 500, 1000, 2000, 4000])
    parser.add_argument("--depths", nargs="*", type=at_least_one, default=[1, 2, 4, 8, 16])
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(DEFAULT), metavar="NAME")
    parser.add_argument("--batch", type=at_least_one, default=100)
    parser.add_argument("--rounds", type=at_least_one, default=20)
    parser.add_argument("--burst", type=at_least_one, default=5, help="steps timed together")
    parser.add_argument("--draws", type=at_least_one, default=100, help="posterior draws of a prediction")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"))
    options = parser.parse_args()
    head = f"batch {options.batch}, {machine(options.device)}"
    print(head)
    axes = {"width": options.widths, "depth": options.depths}
    results = {kind: sweep(kind, sizes, options) for kind, sizes in axes.items() if sizes}
    if not results:
        parser.error("there is nothing to measure: give --widths or --depths")
    picture = draw(results, f"How the cost grows\n{head}")
    write(options.out / "scaling.png", lambda path: picture.savefig(path, dpi=110, format="png"))
    save_record(options.out / "scaling.json", head, results=results)
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
