"""Variational dropout and variational Bayesian dropout as regularisers: Tables 1 to 3."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

import pyro_vbd as vbd
from examples.paper import bayesian
from examples.paper.cell import Job
from examples.paper.dropouts import measure
from examples.paper.measures import error
from examples.paper.picking import metrics, seconds

__all__ = ["train"]


def train(jobs: Sequence[Job], network: Callable[[str], nn.Sequential], prior: vbd.priors.Prior) -> list[dict[str, Any]]:
    """Train a network under a prior; its error at the posterior means, as every published code tests.

    Args:
        jobs: what to train on, seed by seed.
        network: makes the network of a size.
        prior: of every weight.
    """
    recipe = jobs[0].recipe

    def begin(job: Job) -> bayesian.Subject:
        model = vbd.Classifier(network(job.cell.size), prior, num_data=len(job.data.x))
        guide = vbd.VBDGuide(model, alpha=recipe["alpha"], init_log_var=recipe["init_log_var"])
        return bayesian.Subject(job, model, guide, lambda: vbd.point_network(model, guide))

    subjects = bayesian.begun(jobs, begin)
    histories = bayesian.train(subjects, epochs=recipe["epochs"], measure=measure, **bayesian.rates(recipe))
    return [_found(subject, history) for subject, history in zip(subjects, histories, strict=True)]


def _found(subject: bayesian.Subject, history: list[dict[str, Any]]) -> dict[str, Any]:
    data = subject.job.data
    found = metrics(subject.network(), data, measure, history)
    found["sparsity"] = 100.0 * vbd.sparsity(subject.guide)
    found["error_pruned"] = error(vbd.point_network(subject.model, subject.guide, 3.0), data.x_test, data.y_test)
    return {**found, "seconds": seconds(history)}
