"""What a step of several members at once costs, against as many steps one after the other.

    python examples/benchmarks/members.py [--net 784-300-100-10] [--width 16] [--members 8] [--batch 100] [--eager]
    python examples/benchmarks/members.py --members 1 2 4 8 16 --device cuda

One single step is timed, and counted as often as there are members; each number of members is traced and compiled anew, in
half a minute each. Rounds are interleaved, and the table holds medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

import pyro_vbd as vbd
from examples.benchmarks.contenders import Step, adam
from examples.benchmarks.problems import NETS, Problem, dense, problem
from examples.benchmarks.timing import interleaved, machine
from pyro_vbd.training.member_steps import MemberSteps


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", choices=NETS, default="784-300-100-10")
    parser.add_argument("--width", type=int, help="one hidden layer of this width, in place of the network")
    parser.add_argument("--members", type=int, nargs="+", default=[8])
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--eager", action="store_true", help="compile neither the single step nor that of the members")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--burst", type=int, default=3, help="steps timed together")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    options = parser.parse_args()
    timed = problem(dense(options.width, 1) if options.width else NETS[options.net], options.batch, options.device)
    compile = not options.eager
    print(f"{options.width or options.net}, batch {options.batch}, {machine(options.device)}")
    with ExitStack() as held:
        steps = {"one": single(timed, compile)}
        for count in options.members:
            steps[str(count)] = held.enter_context(together(timed, count, compile))
        seconds = interleaved(steps, options.rounds, options.burst, options.device, "members")
    print(f"\n{'members':>8}{'ms a step':>12}{'one by one':>12}{'ratio':>8}")
    for count in options.members:
        ours, theirs = 1e3 * seconds[str(count)], 1e3 * count * seconds["one"]
        print(f"{count:>8}{ours:>12.2f}{theirs:>12.2f}{ours / theirs:>8.2f}")


if __name__ == "__main__":
    main()
