"""The posteriors in numbers."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ground_truth.posteriors import KINDS


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
