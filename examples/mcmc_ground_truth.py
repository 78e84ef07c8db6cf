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
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import pyro.poutine as poutine
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import init_to_value
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from reporting import write
from sklearn.datasets import load_breast_cancer, load_diabetes
from torch import Tensor, nn
from tqdm import tqdm

import pyro_vbd as vbd

HIGH = 1.0  # b: inputs and targets have unit variance
KINDS = {"guide": "guide", "given_gamma": "NUTS | gamma*", "nuts": "NUTS"}
DRAWS_OF_GUIDE = 4000


@dataclass(frozen=True)
class Problem:
    """A model, its data, and what its weights multiply."""

    model: Callable[..., Any]
    x: Tensor
    y: Tensor
    x_new: Tensor
    inputs: list[str]
    #: The mean of the target (or the probability of a yes) from draws of the weights, of shape ``(S, N)``.
    mean: Callable[[dict[str, Tensor], Tensor], Tensor]


def regression() -> Problem:
    """Progress of diabetes a year later, from six measurements. Two of them (s1, s2: cholesterol) say nearly the same."""
    names = ["age", "sex", "bmi", "bp", "s1", "s2"]
    data = load_diabetes()
    x = standardise(torch.tensor(data.data))[:, [data.feature_names.index(name) for name in names]]
    y = standardise(torch.tensor(data.target))
    x, y, x_new, _ = split(x, y)

    def model(x: Tensor, y: Tensor | None = None) -> Tensor:
        gamma = pyro.sample("gamma", dist.Uniform(0.0, HIGH).expand([x.shape[1]]).to_event(1))
        noise = pyro.sample("noise", dist.HalfNormal(1.0))
        weight = pyro.sample("weight", dist.Normal(0.0, gamma.sqrt()).to_event(1))
        with pyro.plate("data", len(x)):
            return pyro.sample("y", dist.Normal((x * weight).sum(-1), noise), obs=y)

    return Problem(model, x, y, x_new, names, lambda draws, x: draws["weight"] @ x.T)


def classification() -> Problem:
    """Whether a tumour is benign, from six measurements of its cells: a network of one layer. Its bias is no latent."""
    names = ["mean radius", "mean texture", "mean smoothness", "mean concavity", "mean symmetry", "mean fractal dimension"]
    data = load_breast_cancer()
    x = standardise(torch.tensor(data.data))[:, [list(data.feature_names).index(name) for name in names]]
    x, y, x_new, _ = split(x, torch.tensor(data.target))
    # weights of logits are larger than those of a standardised target
    model = vbd.Classifier(nn.Linear(len(names), 1), vbd.priors.GaussianUniform(high=10 * HIGH), num_data=len(x))

    def mean(draws: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.sigmoid(draws["weight"].squeeze(1) @ x.T + model.network.net.bias.detach())

    return Problem(model, x, y, x_new, [name.removeprefix("mean ") for name in names], mean)


PROBLEMS = {"regression": regression, "classification": classification}


def standardise(values: Tensor) -> Tensor:
    return (values - values.mean(0)) / values.std(0)


def split(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    held_out, kept = order[:100], order[100:]
    return x[kept], y[kept], x[held_out], y[held_out]


def fit_guide(problem: Problem, steps: int, bar: tqdm) -> vbd.VBDGuide:
    """The guide after a number of steps on all data, the learning rate falling to 0."""
    guide = vbd.VBDGuide(problem.model, problem.x, problem.y, init_log_var=-4.0)
    vbd.fit(
        problem.model,
        guide,
        [(problem.x, problem.y)],
        epochs=steps,
        lr=0.02,
        elbo=vbd.VBD_ELBO(num_particles=2),
        lr_schedule=vbd.schedules.linear_decay(0.3),
        callbacks=[lambda run: bar.update()],
        progress=False,
    )
    return guide


def run_nuts(
    model: Callable[..., Any], problem: Problem, start: dict[str, Tensor], options: argparse.Namespace, bar: tqdm
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Draws by site, of shape ``(chains, draws, *site shape)``, and what NUTS has to say of itself.

    The weights are left centred: U(0, b) has next to no mass where gamma is near 0, so that there is hardly a funnel, and
    the data pin the weights down. Non-centred (``LocScaleReparam(0.0)``) the same run had a fifth of the effective draws.
    A dense mass matrix follows the weights' correlations.
    """
    chains, divergent = [], 0
    for chain in range(options.chains):
        pyro.set_rng_seed(chain)
        kernel = NUTS(
            model,
            full_mass=True,
            target_accept_prob=0.9,  # at the usual 0.8 a few of the steps diverge
            max_tree_depth=7,  # later trees are shallower, and so the first ones may not waste time
            init_strategy=init_to_value(values=jitter(start)),
        )
        mcmc = MCMC(
            kernel,
            num_samples=options.draws,
            warmup_steps=options.warmup,
            disable_progbar=True,
            hook_fn=lambda *_: bar.update(),
        )
        with pyro.validation_enabled(False):
            mcmc.run(problem.x, problem.y)  # all data: see above
        chains.append(mcmc.get_samples())
        divergent += len(mcmc.diagnostics()["divergences"]["chain 0"])
    draws = {site: torch.stack([chain[site] for chain in chains]) for site in chains[0]}
    return draws, {
        "divergent": divergent,
        "r_hat": max(float(split_gelman_rubin(value).max()) for value in draws.values()),
        "ess": min(float(effective_sample_size(value).min()) for value in draws.values()),
    }


def jitter(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Starts that differ from chain to chain, or r_hat has nothing to compare; positive values stay positive."""
    return {site: value * (1 + 0.5 * (torch.rand_like(value) - 0.5)) for site, value in values.items()}


def compare(problem: Problem, options: argparse.Namespace, bar: tqdm) -> dict[str, Any]:
    """Draws of the three posteriors, and the checks of each."""
    pyro.set_rng_seed(0)
    started = time.perf_counter()
    guide = fit_guide(problem, options.steps, bar)
    seconds = {"guide": time.perf_counter() - started}
    start = guide.median()
    gammas = {site: value for site, value in start.items() if site.endswith("gamma")}
    others = {site: value for site, value in start.items() if site not in gammas}
    k = vbd.pareto_k(problem.model, guide, problem.x, problem.y, num_samples=1000, batch_size=50_000)
    draws = {"guide": guide.sample(DRAWS_OF_GUIDE)}
    checks: dict[str, Any] = {"guide": {"pareto_k": k}}
    # a gamma at the very edge of its support, where a run must not start
    inner = {site: value.clamp(1e-3, 0.9 * HIGH) for site, value in gammas.items()}
    for kind, model, first in (
        ("given_gamma", poutine.condition(problem.model, gammas), others),
        ("nuts", problem.model, {**others, **inner}),
    ):
        started = time.perf_counter()
        found, checks[kind] = run_nuts(model, problem, first, options, bar)
        draws[kind] = {site: value.flatten(0, 1) for site, value in found.items()}
        seconds[kind] = time.perf_counter() - started
    count = options.chains * options.draws
    draws["given_gamma"] |= {site: value.expand(count, *value.shape) for site, value in gammas.items()}
    for kind, value in seconds.items():
        checks[kind]["seconds"] = value
    return {"draws": draws, "checks": checks, "names": labels(problem, start)}


def labels(problem: Problem, values: dict[str, Tensor]) -> dict[str, list[str]]:
    """A name for each element of each site."""
    return {site: problem.inputs if value.numel() == len(problem.inputs) else [site] for site, value in values.items()}


def table(name: str, found: dict[str, Any]) -> str:
    """Mean and standard deviation of each latent under each posterior, and the checks."""
    lines = [f"{name:<16}{'':<20}" + "".join(f"{title:>20}" for title in KINDS.values())]
    for site, elements in found["names"].items():
        moments = {kind: moments_of(found["draws"][kind][site]) for kind in KINDS}
        for i, element in enumerate(elements):
            cells = [f"{mean[i]:.3f} +- {sd[i]:.3f}" for mean, sd in moments.values()]
            lines.append(f"{site if i == 0 else '':<16}{element:<20}" + "".join(f"{cell:>20}" for cell in cells))
    for check in ("pareto_k", "r_hat", "ess", "divergent", "seconds"):
        cells = [f"{found['checks'][kind][check]:.3g}" if check in found["checks"][kind] else "-" for kind in KINDS]
        lines.append(f"{'':<16}{check:<20}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)


def moments_of(draws: Tensor) -> tuple[list[float], list[float]]:
    flat = draws.reshape(len(draws), -1)
    return flat.mean(0).tolist(), flat.std(0).tolist()


def figure(problems: dict[str, Problem], results: dict[str, dict[str, Any]]) -> plt.Figure:
    """Intervals of the weights and of the gammas, and of the means of new targets: a row for each problem."""
    drawing, rows = plt.subplots(len(results), 3, figsize=(13, 4.2 * len(results)), constrained_layout=True, squeeze=False)
    for (name, found), (left, middle, right) in zip(results.items(), rows, strict=True):
        sites = {"weight": left, next(site for site in found["names"] if site.endswith("gamma")): middle}
        for site, axes in sites.items():
            elements = found["names"][site]
            for offset, (kind, title) in enumerate(KINDS.items()):
                intervals(axes, found["draws"][kind][site], offset, title)
            axes.set_yticks(range(len(elements)), elements)
            axes.invert_yaxis()
        left.axvline(0.0, color="lightgrey", zorder=0)
        left.set(title=f"{name}: weights")
        middle.set(title=f"{name}: gamma, their variances", xscale="log")
        reach(right, problems[name], found["draws"])
        right.set(title=f"{name}: how unsure of new targets")
    for column in rows[-1][:2]:
        column.set_xlabel("posterior median and central 90%")
    drawing.legend(*rows[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=len(KINDS), frameon=False)
    return drawing


def intervals(axes: plt.Axes, draws: Tensor, offset: int, label: str) -> None:
    """Median and central 90% of each element, one below the other."""
    low, median, high = draws.reshape(len(draws), -1).quantile(torch.tensor([0.05, 0.5, 0.95], dtype=draws.dtype), dim=0)
    heights = torch.arange(len(median)) + 0.22 * (offset - 1)
    axes.hlines(heights, low, high, color=f"C{offset}", lw=2)
    axes.plot(median, heights, "o", color=f"C{offset}", ms=4, label=label)


def reach(axes: plt.Axes, problem: Problem, draws: dict[str, dict[str, Tensor]]) -> None:
    """The guide's and NUTS-given-gamma*'s standard deviations of each new mean, against those of NUTS."""
    deviations = {kind: problem.mean(values, problem.x_new).std(0) for kind, values in draws.items()}
    for offset, kind in enumerate(("guide", "given_gamma")):
        axes.plot(deviations["nuts"], deviations[kind], ".", color=f"C{offset}")
    top = float(deviations["nuts"].max())
    axes.plot([0, top], [0, top], color="grey", linestyle=":")
    axes.set(xlabel="standard deviation over draws of NUTS", ylabel="of the others")


def parse(arguments: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS))
    parser.add_argument("--steps", type=int, default=1000, help="of the guide's optimizer")
    parser.add_argument("--chains", type=int, default=2, help="of NUTS, one after the other")
    parser.add_argument("--warmup", type=int, default=300, help="steps of NUTS that are thrown away")
    parser.add_argument("--draws", type=int, default=400, help="of each chain")
    parser.add_argument("--out", type=Path, default=Path("out/mcmc_ground_truth"))
    return parser.parse_args(None if arguments is None else list(arguments))


def main() -> None:
    options = parse()
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
