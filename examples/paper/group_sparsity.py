"""Neurons removed by priors whose scale a neuron's weights share, the network then cut and trained plainly (5-strong).

Such a prior sees how many weights a group has, but not how many others go with it: a hidden unit's ten outgoing weights
take hundreds with them. ``site_weights`` make the KL of such groups count for more, and of others for less. Of a group that
stays all weights are noisy, the useless ones too, and the network errs more than it must; so, once cut, it is trained on by
its likelihood alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyro
from torch import Tensor, nn

import pyro_vbd as vbd
from examples.paper import bayesian
from examples.paper.cell import Job
from examples.paper.dense import begun_from_dense
from examples.paper.measures import error, structure
from examples.paper.picking import metrics, seconds
from examples.paper.plain import adam
from examples.paper.plain import train as train_plain
from pyro_vbd.priors.prior import HierarchicalPrior
from pyro_vbd.training.schedules import linear_decay

__all__ = ["group_masks", "group_priors", "train"]


def train(jobs: Sequence[Job], prior: Callable[..., HierarchicalPrior]) -> list[dict[str, Any]]:
    """Train densely, under the prior, and without the groups that have gone.

    Args:
        jobs: what to train on, seed by seed.
        prior: makes the prior, given ``per=``.
    """
    recipe = jobs[0].recipe

    def begin(job: Job, plain: nn.Sequential) -> bayesian.Subject:
        priors = group_priors(plain, prior)
        model = vbd.Classifier(plain, priors, num_data=len(job.data.x))
        guide = vbd.VBDGuide(model, init_log_var=recipe["init_log_var"])

        def network() -> nn.Module:
            return vbd.point_network(model, guide, kept=group_masks(guide, priors, recipe["threshold"]))

        return bayesian.Subject(job, model, guide, network)

    subjects, left, firsts = begun_from_dense(jobs, begin)
    tuned = max(1, min(round(recipe["tune"] * recipe["epochs"]), left - 1))
    histories = bayesian.train(subjects, epochs=max(1, left - tuned), **bayesian.rates(recipe))
    return [
        _tuned(subject, tuned, seconds(first, second))
        for subject, first, second in zip(subjects, firsts, histories, strict=True)
    ]


def _tuned(subject: bayesian.Subject, epochs: int, before: float) -> dict[str, Any]:
    """Cut what has gone, and train the rest plainly."""
    job, recipe = subject.job, subject.job.recipe
    masked, image = subject.network(), subject.job.data.x[:1]
    left = structure(masked, image)
    small = vbd.cut(masked, image, allow_dead=True).network  # a network that has died errs on nine in ten

    def measure(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
        return {"error": error(net, x, y), **left}

    pyro.set_rng_seed(job.cell.seed)
    history = train_plain(
        small,
        job,
        phase="tune",
        epochs=epochs,
        optimizer=adam(recipe["tune_lr"]),
        batch_size=recipe["batch_size"],
        lr_schedule=linear_decay(),
        measure=measure,
    )
    return {
        "error_before": error(masked, job.data.x_test, job.data.y_test),
        **metrics(small, job.data, measure, history),
        "seconds": before + seconds(history),
    }


def group_priors(net: nn.Module, prior: Callable[..., HierarchicalPrior]) -> dict[str, HierarchicalPrior]:
    """By weight: each input of a layer has a scale, a channel or a unit; of a first convolution each filter has.

    An image's channels stay. A filter of another layer goes when all that reads it has gone.
    """
    layers = [(name, module) for name, module in net.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    first = layers[0][1]
    return {
        f"{name}.weight": prior(per="output" if module is first and isinstance(module, nn.Conv2d) else "input")
        for name, module in layers
    }


def group_masks(guide: vbd.VBDGuide, priors: Mapping[str, HierarchicalPrior], threshold: float) -> dict[str, Tensor]:
    """Masks that keep or remove the groups of :func:`group_priors` whole, by their log alpha."""
    outputs, inputs = (vbd.masks(guide, threshold, per=per) for per in ("unit", "input"))
    return {site: (outputs if prior.per == "output" else inputs)[site] for site, prior in priors.items()}
