"""One run of the comparison: a prior, a seed, and every number that is asked for."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from data import Split, load, without_classes
from measures.classification import auroc, scores
from torch import Tensor
from training import Plan

from comparison.families import FAMILIES
from comparison.settings import SETTINGS, Setting
from comparison.trained import Bayesian, Plain, Trained
from pyro_vbd.predict import ClassPrediction

__all__ = ["Run", "data_of", "run"]

#: Numbers by column, and tensors for the figure.
Run = dict[str, Any]


@functools.lru_cache(maxsize=1)
def data_of(name: str, folder: Path, validate: bool) -> tuple[Split, Tensor | None]:
    """Training and evaluation data, and strange data of another origin where there are such."""
    return load(name, folder, validate), SETTINGS[name].foreign(folder)


def run(
    prior: str, seeds: Sequence[int], plan: Plan, data: tuple[str, Path, bool], device: torch.device, threads: int
) -> dict[str, list[Run]]:
    """Train under a prior of the table of families; and again, where the data set says so, without some classes.

    Several seeds are trained side by side; ``"runs"`` are theirs, in order.

    The AUROC tells how well a network's uncertainty parts the strange data from the evaluation data: the classes that
    it was not trained on, or images of another origin.
    """
    if threads:
        torch.set_num_threads(threads)
    split, strange = data_of(*data)
    split = Split(*(part.to(device) for part in vars(split).values()))
    setting = SETTINGS[data[0]]
    networks = _train(prior, setting, plan, split, seeds)
    predictions = [trained.predict(split.x_eval) for trained in networks]
    found = [_measured(*one, split) for one in zip(networks, predictions, strict=True)]
    if setting.held_out:
        split, strange = without_classes(split, setting.held_out)
        networks = _train(prior, setting, plan, split, seeds)
        predictions = [trained.predict(split.x_eval) for trained in networks]
    if strange is not None:
        for one, trained, ours in zip(found, networks, predictions, strict=True):
            one.update(_told_apart(ours, trained.predict(strange.to(device))))
    return {"runs": found}


def _train(prior: str, setting: Setting, plan: Plan, split: Split, seeds: Sequence[int]) -> Sequence[Trained]:
    make = FAMILIES[prior]
    if make is None:
        return [Plain(setting, plan, split, seed) for seed in seeds]
    return Bayesian.from_seeds(make, setting, plan, split, seeds)


def _measured(trained: Trained, prediction: ClassPrediction, split: Split) -> Run:
    found = {**scores(prediction.probs, split.y_eval), **trained.report(split)}
    return {**found, "probs": prediction.probs.cpu(), "seconds": trained.seconds}


def _told_apart(ours: ClassPrediction, theirs: ClassPrediction) -> Run:
    found = {"auroc_entropy": auroc(ours.entropy, theirs.entropy)}
    if bool(ours.mutual_information.isfinite().all()):
        found["auroc_information"] = auroc(ours.mutual_information, theirs.mutual_information)
    return found
