"""Scores of class probabilities: error, likelihood, Brier, calibration, and telling strange data from known ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc, multiclass_calibration_error

__all__ = ["auroc", "brier", "overconfidence", "reliability", "scores"]

BINS = 15


def scores(probs: Tensor, y: Tensor) -> dict[str, float]:
    """Error and expected calibration error (15 bins) in per cent, negative log-likelihood in nats per datum, Brier score.

    Args:
        probs: of shape ``(N, C)``.
        y: labels, of shape ``(N,)``.
    """
    return {
        "error": 100 * float((probs.argmax(-1) != y).float().mean()),
        "nll": float(F.nll_loss(probs.clamp_min(1e-12).log(), y)),
        "brier": brier(probs, y),
        "calibration": 100 * float(multiclass_calibration_error(probs, y, num_classes=probs.size(-1), n_bins=BINS)),
        "overconfidence": 100 * overconfidence(probs, y),
    }


def brier(probs: Tensor, y: Tensor) -> float:
    """Mean over data of the squared distance of the probabilities from the label's one-hot vector (between 0 and 2)."""
    return float((probs - F.one_hot(y, probs.size(-1))).square().sum(-1).mean())


def overconfidence(probs: Tensor, y: Tensor) -> float:
    """Mean confidence minus accuracy: above 0 too sure, below 0 not sure enough. Its size is the ECE with one bin."""
    confidence, label = probs.max(-1)
    return float(confidence.mean() - (label == y).to(confidence).mean())


def auroc(known: Tensor, strange: Tensor) -> float:
    """How well an uncertainty tells strange data from known ones: 0.5 not at all, 1 always higher on the strange."""
    target = torch.cat([torch.zeros_like(known), torch.ones_like(strange)]).int()
    # ranks, not values: torchmetrics squashes scores outside [0, 1] through a sigmoid, which ties the large ones
    ranks = torch.cat([known, strange]).unique(return_inverse=True)[1]
    return float(binary_auroc(ranks.double() / max(int(ranks.max()), 1), target))


def reliability(probs: Tensor, y: Tensor, bins: int = 10) -> tuple[list[float], list[float]]:
    """Mean confidence and accuracy in bins of equal numbers of data: the reliability diagram."""
    confidence, label = probs.max(-1)
    order = confidence.argsort()
    right = (label == y).float()
    parts = order.tensor_split(bins)  # as many as asked for, however few the data
    return [float(confidence[part].mean()) for part in parts], [float(right[part].mean()) for part in parts]
