"""What one training step costs: this library, hand-written layers, plain Pyro and other libraries, and no posterior at all.

    python examples/benchmarks/step_time.py [--nets lenet-5-caffe] [--only pyro_vbd plain] [--rounds 40] [--device cuda]

Every round times one burst of steps of each contender in turn, so that a noisy machine slows them all; the table holds
medians over rounds, and their ratio to the plain network's eager step with a fused Adam. The first step counts what it
takes to make a contender and to compile it, where it does; memory is the most that torch holds during a step.

Other libraries come with ``pip install 'pyro-vbd[bench]'``; those that are missing are left out, with a line that says so.
TyXe runs with Pyro 1.9.1.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch

from examples.arguments import at_least_one
from examples.benchmarks import peers  # noqa: F401  (they register themselves)
from examples.benchmarks.contenders import CONTENDERS, PLAIN
from examples.benchmarks.figures import bars
from examples.benchmarks.problems import NETS, problem
from examples.benchmarks.records import save_record
from examples.benchmarks.timing import add_memory, first_steps, interleaved, machine
from examples.reporting import write

COLUMNS = ("ms a step", "x plain", "first step s", "MB", "x plain")


def chosen(patterns: list[str] | None) -> list[str]:
    """The plain network and the contenders whose name begins with one of the patterns."""
    return [name for name in CONTENDERS if name == PLAIN or patterns is None or name.startswith(tuple(patterns))]


def measure(name: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds a step, seconds to the first step and bytes of each contender that can take part."""
    timed = problem(NETS[name], options.batch, options.device)
    steps, first = first_steps(timed, chosen(options.only), print)
    seconds = interleaved(steps, options.rounds, options.burst, options.device, name)
    found = {c: {"seconds": seconds[c], "first": first[c]} for c in steps}
    if options.memory:
        del steps
        add_memory(timed, found, print)
    return found


def print_table(name: str, found: dict[str, dict[str, float]]) -> None:
    """Contenders in rows."""
    print(f"\n{name:<40}" + "".join(f"{column:>14}" for column in COLUMNS))
    plain = found[PLAIN]
    for contender, values in found.items():
        memory = values.get("bytes", math.nan)
        numbers = (
            1e3 * values["seconds"], values["seconds"] / plain["seconds"], values["first"],
            memory / 1e6, memory / plain.get("bytes", math.nan),
        )  # fmt: skip
        print(
            f"  {contender:<38}" + "".join(f"{number:>14.2f}" if number == number else f"{'-':>14}" for number in numbers)
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--only", nargs="+", metavar="NAME", help=f"beginnings of names among: {'; '.join(CONTENDERS)}")
    parser.add_argument("--batch", type=at_least_one, default=100)
    parser.add_argument("--rounds", type=at_least_one, default=40)
    parser.add_argument("--burst", type=at_least_one, default=5, help="steps timed together")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave the memory out")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"), help="folder of the picture and the numbers")
    options = parser.parse_args()
    head = f"batch {options.batch}, {machine(options.device)}"
    print(head)
    results = {}
    for name in options.nets:
        results[name] = measure(name, options)
        print_table(name, results[name])
    ratios = {
        name: {c: values["seconds"] / found[PLAIN]["seconds"] for c, values in found.items()}
        for name, found in results.items()
    }
    picture = bars(ratios, "step time / that of the plain network", f"One training step\n{head}")
    write(options.out / "step_time.png", lambda path: picture.savefig(path, dpi=120, format="png"))
    save_record(options.out / "step_time.json", head, results=results)
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
