"""The posterior of variational Bayesian dropout against the true one, by NUTS on the very same Pyro models.

    python examples/mcmc_ground_truth.py
    python examples/mcmc_ground_truth.py --problems regression --draws 2000

A linear regression (written by hand, its noise inferred as well) and a logistic one (``vbd.Classifier``), both with a
variance of its own for each weight, w ~ N(0, gamma), gamma ~ U(0, b). Three posteriors are put side by side:

- guide: ``VBDGuide``, independent Gaussians over the weights, and each gamma at its optimum gamma*;
- NUTS | gamma*: the model with its gammas held at gamma*. What the guide gets wrong against it is due to its independent
  Gaussians alone. They are too narrow where weights trade off against each other;
- NUTS: all of the model. What changes from the one before is due to gamma* in place of a posterior of gamma. That one is
  broad, and lies far above gamma* where a weight is small: U(0, b) by itself removes no weight, its optimum does. Of two
  inputs that say nearly the same (s1, s2) the guide is sure that both are worth nothing; NUTS is not.

Prints a table of means, standard deviations and NUTS's own checks, and saves it with a figure.

NUTS needs all data in every gradient. Given a mini-batch it runs without a word: the plate scales the batch's likelihood
up to N data, and the chain samples from the posterior of a data set that consists of copies of that batch; with
``subsample_size=`` each gradient is of another batch, and the chain has no invariant distribution at all. ``r_hat`` and
``ess`` are of NUTS's chains; of the guide's draws, which are independent, they would be perfect and mean nothing.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import torch
from arguments import at_least_one
from ground_truth.figures import figure
from ground_truth.posteriors import KINDS, compare
from ground_truth.problems import PROBLEMS
from ground_truth.tables import moments_of, table
from reporting import write
from tqdm import tqdm


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--steps", type=at_least_one, default=1000, help="of the guide's optimizer")
    parser.add_argument("--chains", type=at_least_one, default=2, help="of NUTS, one after the other")
    parser.add_argument("--warmup", type=int, default=300, help="steps of NUTS that are thrown away")
    parser.add_argument("--draws", type=at_least_one, default=400, help="of each chain")
    parser.add_argument("--out", type=Path, default=Path("out/mcmc_ground_truth"))
    return parser.parse_args(None if arguments is None else list(arguments))


def main() -> None:
    options = parse()
    matplotlib.use("Agg")
    torch.set_num_threads(1)  # vectors of a few hundred: more threads only wait
    torch.set_default_dtype(torch.float64)
    problems = {name: PROBLEMS[name]() for name in options.problems}
    results = {}
    each = options.steps + 2 * options.chains * (options.warmup + options.draws)
    with tqdm(total=len(problems) * each, unit="step") as bar:
        for name, problem in problems.items():
            bar.set_description(name)
            results[name] = compare(problem, options, bar)
    for name, found in results.items():
        print(table(name, found), end="\n\n")
    options.out.mkdir(parents=True, exist_ok=True)
    drawing = figure(problems, results)
    write(options.out / "posteriors.png", lambda path: drawing.savefig(path, dpi=120, format="png"))
    numbers = {
        name: {
            "checks": found["checks"],
            "moments": {kind: {site: moments_of(draws) for site, draws in found["draws"][kind].items()} for kind in KINDS},
        }
        for name, found in results.items()
    }
    write(options.out / "posteriors.json", lambda path: path.write_text(json.dumps(numbers, indent=1)))
    print(f"figure: {options.out / 'posteriors.png'}, numbers: {options.out / 'posteriors.json'}")


if __name__ == "__main__":
    main()
