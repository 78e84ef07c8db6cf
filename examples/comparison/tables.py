"""The results in words: two tables of means and standard deviations over seeds, and the comparison by leave-one-out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from measures.leave_one_out import GOOD_K, compare, leave_one_out, pointwise, too_heavy, verdict
from reporting import spread

from comparison.runs import Run

__all__ = ["NOTES", "tables"]

PREDICTIONS = {
    "error": "error %",
    "nll": "NLL",
    "brier": "Brier",
    "calibration": "ECE %",
    "overconfidence": "overconf. %",
    "auroc_entropy": "AUROC entropy",
    "auroc_information": "AUROC information",
}

WEIGHTS = {
    "removed": "log alpha > 3, %",
    "error_after": "error after, %",
    "elbo": "ELBO / datum",
    "elpd": "elpd_loo / datum",
    "bad_k": f"k > {GOOD_K}, %",
    "seconds": "seconds",
}

NOTES = (
    "NLL and ELBO in nats; overconf.: mean confidence minus accuracy. AUROC: {strange} against the test data, by the\n"
    "entropy of the prediction and by the part of it that the weights do not know. The ELBO is up to a constant of each\n"
    "prior (of an improper one, any): it compares seeds, not priors. elpd_loo: PSIS-LOO with draws of the guide."
)


def tables(results: Mapping[str, Sequence[Run]], strange: str) -> str:
    """All of it, ready to print."""
    estimates = {}
    for name, runs in results.items():
        for run in reversed(runs):
            if "log_likelihood" in run:
                estimates[name] = leave_one_out(run["log_likelihood"])
                run["elpd"] = float(pointwise(estimates[name]).mean())
                run["bad_k"] = 100 * float(too_heavy(estimates[name]).mean())
    parts = [_table(PREDICTIONS, results), _table(WEIGHTS, results), NOTES.format(strange=strange)]
    if len(estimates) > 1:
        parts.append(f"ArviZ compare, seed 0:\n{compare(estimates)}")
    if estimates:
        parts.append(verdict(estimates))
    return "\n\n".join(parts)


def _table(columns: Mapping[str, str], results: Mapping[str, Sequence[Run]]) -> str:
    lines = [f"{'':<15}" + "".join(f"{title:>20}" for title in columns.values())]
    for name, runs in results.items():
        cells = [spread([run[column] for run in runs if column in run]) for column in columns]
        lines.append(f"{name:<15}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)
