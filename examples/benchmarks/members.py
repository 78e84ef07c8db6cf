"""What a step of several members at once costs, against as many steps one after the other.

    python examples/benchmarks/members.py [--nets 784-16-10 lenet-5-caffe] [--members 8] [--batch 100]
    python examples/benchmarks/members.py --members 1 2 4 8 16 --device cuda

One single step is timed, and counted as often as there are members, both compiled and not; each number of members is traced
and compiled anew, in half a minute each. Rounds are interleaved, and the table holds medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

import pyro_vbd as vbd
from examples.arguments import at_least_one
from examples.benchmarks.contenders import Step, adam
from examples.benchmarks.problems import NETS, Problem, dense, problem
from examples.benchmarks.records import save_record
from examples.benchmarks.timing import interleaved, machine
from pyro_vbd.training.member_steps import MemberSteps

#: A step that costs little beside its overhead, and those of the other benchmarks.
MAPPED = {"784-16-10": dense(16, 1), **NETS}
KINDS = {"compiled": True, "eager": False}


def run_of(timed: Problem) -> vbd.Fit:
    """A run that has not begun."""
    model = vbd.Classifier(timed.net(), vbd.priors.GaussianUniform(), timed.num_data).to(timed.device)
    guide, elbo = vbd.VBDGuide(model), vbd.VBD_ELBO()
    parameters = {name: p for name, p in elbo(model, guide).named_parameters() if p.requires_grad}
    return vbd.Fit(model, guide, elbo, parameters, adam(parameters.values()))


def single(timed: Problem, compile: bool) -> Step:
    """A step of one network."""
    run = run_of(timed)
    if compile:
        loss = vbd.compile(run.elbo(run.model, run.guide))
        return lambda: loss.update(run.optimizer, timed.x, timed.y, check=False)

    def step() -> None:
        run.optimizer.zero_grad()
        run.elbo.loss_and_grads(run.model, run.guide, timed.x, timed.y)
        run.optimizer.step()

    return step


@contextmanager
def together(timed: Problem, count: int, compile: bool) -> Iterator[Step]:
    """A step of several networks, inside the context."""
    steps = MemberSteps([run_of(timed) for _ in range(count)], compile, lambda words: None)
    with steps.training():
        yield lambda: steps((timed.x, timed.y), check=False)


def measure(name: str, options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of a step, by kind and by ``"one"`` or the number of members."""
    timed = problem(MAPPED[name], options.batch, options.device)
    with ExitStack() as held:
        steps: dict[tuple[str, str], Step] = {}
        for kind in options.kinds:
            steps[kind, "one"] = single(timed, KINDS[kind])
            for count in options.members:
                steps[kind, str(count)] = held.enter_context(together(timed, count, KINDS[kind]))
        named = {" ".join(key): step for key, step in steps.items()}
        seconds = interleaved(named, options.rounds, options.burst, options.device, name)
    found: dict[str, dict[str, float]] = {kind: {} for kind in options.kinds}
    for kind, count in steps:
        found[kind][count] = seconds[f"{kind} {count}"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=MAPPED, default=list(MAPPED))
    parser.add_argument("--members", type=at_least_one, nargs="+", default=[8])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="of the single step and the others")
    parser.add_argument("--batch", type=at_least_one, default=100)
    parser.add_argument("--rounds", type=at_least_one, default=20)
    parser.add_argument("--burst", type=at_least_one, default=3, help="steps timed together")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks"), help="folder of the numbers")
    options = parser.parse_args()
    head = f"batch {options.batch}, {machine(options.device)}"
    print(head)
    results = {}
    for name in options.nets:
        results[name] = measure(name, options)
        print(f"\n{name:<20}{'members':>8}{'ms a step':>12}{'one by one':>12}{'ratio':>8}")
        for kind, seconds in results[name].items():
            for count in options.members:
                ours, theirs = 1e3 * seconds[str(count)], 1e3 * count * seconds["one"]
                print(f"  {kind:<18}{count:>8}{ours:>12.2f}{theirs:>12.2f}{ours / theirs:>8.2f}")
    save_record(options.out / "members.json", head, results=results)
    print(f"\nwritten to {options.out}")


if __name__ == "__main__":
    main()
