"""One run: a method on one split of a data set, its setting chosen on validation data, its scores on test data."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from comparison.families import FAMILIES
from measures.selective import aurc, risk_coverage

from uncertainty.laplace import Laplace
from uncertainty.methods import DeepEnsemble, Deterministic, MCDropout, Method, Prior
from uncertainty.problems import PROBLEMS

__all__ = ["BASELINES", "METHODS", "Run", "run"]

#: Numbers by column, the setting that was chosen, and the curves of the figure.
Run = dict[str, Any]

BASELINES: dict[str, Method] = {
    "deterministic": Deterministic(),
    "ensemble": DeepEnsemble(),
    "mc-dropout": MCDropout(),
    "laplace-last-layer": Laplace("last_layer"),
    "laplace-all-layers": Laplace("all"),
}

#: The baselines, and every prior of the library by its name.
METHODS: dict[str, Method] = {
    **{family: Prior(family) for family, make in FAMILIES.items() if make is not None},
    **BASELINES,
}

#: Points of a risk-coverage curve that are kept.
COVERAGES = torch.linspace(0.02, 1.0, 50)


def run(problem: str, method: str, seed: int, epochs: int | None, folder: Path, device: torch.device, threads: int) -> Run:
    """Choose the setting with the best validation likelihood, train anew on training and validation data, and test.

    Args:
        problem: a key of ``PROBLEMS``.
        method: a key of ``METHODS``.
        seed: of the split and of the training.
        epochs: in place of the problem's own.
        folder: where the data lie.
        device: where to train.
        threads: 0 for torch's choice.
    """
    if threads:
        torch.set_num_threads(threads)
    asked, how = PROBLEMS[problem], METHODS[method]
    if epochs:
        asked = replace(asked, plan=replace(asked.plan, epochs=epochs))
    data = asked.load(folder, seed).to(device)
    start = time.perf_counter()

    def validation(setting: Any) -> float:
        predict = how.tuned_as.fit(asked, data.x, data.y, seed, setting)
        return asked.task.scores(predict(data.x_valid), data.y_valid)["nll"]

    chosen = min(how.grid, key=validation) if len(how.grid) > 1 else how.grid[0]
    tuned = time.perf_counter()
    whole = data.refit()
    predict = how.fit(asked, whole.x, whole.y, seed, chosen)
    trained = time.perf_counter()
    predictive = predict(whole.x_test)
    loss, uncertainty = asked.task.selection(predictive, whole.y_test)
    risks = risk_coverage(loss, uncertainty)
    return {
        **asked.task.scores(predictive, whole.y_test),
        "aurc": 1000 * aurc(loss, uncertainty),
        "seconds": trained - tuned,
        "tuning": tuned - start,
        "setting": dict(chosen),
        "diagram": asked.task.diagram(predictive, whole.y_test),
        "risk": risks[(COVERAGES * len(risks)).long().clamp(1, len(risks)).to(risks.device) - 1].tolist(),
    }
