"""One run of the comparison: a prior, a seed, and every number that is asked for."""

from __future__ import annotations

import functools
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

__all__ = ["Run", "data_of", "run"]

#: Numbers by column, and tensors for the figure.
Run = dict[str, Any]


@functools.lru_cache(maxsize=1)
def data_of(name: str, folder: Path, validate: bool) -> tuple[Split, Tensor | None]:
    """Training and evaluation data, and strange data of another origin where there are such."""
    return load(name, folder, validate), SETTINGS[name].foreign(folder)


def run(prior: str, seed: int, plan: Plan, data: tuple[str, Path, bool], device: torch.device, threads: int) -> Run:
    """Train under a prior of the table of families; and again, where the data set says so, without some classes.

    The AUROC tells how well a network's uncertainty parts the strange data from the evaluation data: the classes that
    it was not trained on, or images of another origin.
    """
    if threads:
        torch.set_num_threads(threads)
    split, strange = data_of(*data)
    split = Split(*(part.to(device) for part in vars(split).values()))
    setting = SETTINGS[data[0]]
    trained = _train(prior, setting, plan, split, seed)
    prediction = trained.predict(split.x_eval)
    found = {
        **scores(prediction.probs, split.y_eval),
        **trained.report(split),
        "probs": prediction.probs.cpu(),
        "seconds": trained.seconds,
    }
    if setting.held_out:
        split, strange = without_classes(split, setting.held_out)
        trained = _train(prior, setting, plan, split, seed)
        prediction = trained.predict(split.x_eval)
    if strange is not None:
        other = trained.predict(strange.to(device))
        found["auroc_entropy"] = auroc(prediction.entropy, other.entropy)
        if bool(prediction.mutual_information.isfinite().all()):
            found["auroc_information"] = auroc(prediction.mutual_information, other.mutual_information)
    return found


def _train(prior: str, setting: Setting, plan: Plan, split: Split, seed: int) -> Trained:
    make = FAMILIES[prior]
    return Plain(setting, plan, split, seed) if make is None else Bayesian(make(), setting, plan, split, seed)
