"""Draws of a problem's posterior: of the guide, of NUTS with gamma at the guide's optimum, and of NUTS."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import pyro
import pyro.poutine as poutine
import torch
from pyro.infer import MCMC, NUTS
from pyro.infer.autoguide import init_to_value
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor
from tqdm import tqdm

import pyro_vbd as vbd
from ground_truth.problems import HIGH, Problem

#: The posteriors, and how people call them.
KINDS = {"guide": "guide", "given_gamma": "NUTS | gamma*", "nuts": "NUTS"}
DRAWS_OF_GUIDE = 4000


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
