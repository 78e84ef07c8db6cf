"""Predictions with their uncertainty, averaged over posterior draws as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from tqdm import tqdm

from pyro_vbd.draws.targets import TargetDraws, is_of_classes
from pyro_vbd.inputs import is_packed, is_several, lengths, part
from pyro_vbd.modes import in_mode
from pyro_vbd.placement import brought, common_device

__all__ = ["ClassPrediction", "ValuePrediction", "predict"]


@dataclass(frozen=True)
class ClassPrediction:
    """Prediction of a class: of shape ``(N, ..., C)``, or of a yes or no, of shape ``(N, ...)``. Entropies in nats."""

    #: Mean over draws of the class probabilities.
    probs: Tensor
    #: Entropy of ``probs``: the whole uncertainty, of shape ``(N, ...)``.
    entropy: Tensor
    #: What the weights do not know: ``entropy`` minus the mean entropy of the draws (BALD), of shape ``(N, ...)``.
    mutual_information: Tensor


@dataclass(frozen=True)
class ValuePrediction:
    """Prediction of a number, of the shape of the targets."""

    #: Mean over draws of the means.
    mean: Tensor
    #: Variance of a new observation: of the noise and of the weights.
    variance: Tensor
    #: The part of the variance that comes from the weights alone (population variance over draws).
    epistemic_variance: Tensor


class _Classes:
    """Running sums for a Categorical or a Bernoulli.

    Args:
        first: the distribution under one draw; that of K draws has the same shape, with K in front.
    """

    def __init__(self, first: Any) -> None:
        self.shape, self.binary = first.probs.shape, isinstance(first, dist.Bernoulli)
        self.probs: Any = 0.0
        self.entropy: Any = 0.0

    def add(self, count: int, fn: Any) -> None:
        probs = fn.probs.reshape(count, *self.shape)
        self.probs = self.probs + probs.sum(0)
        self.entropy = self.entropy + _entropy(probs, self.binary).sum(0)

    def result(self, count: int) -> ClassPrediction:
        probs = self.probs / count
        entropy = _entropy(probs, self.binary)
        # rounding may leave a tiny negative difference where the draws agree
        return ClassPrediction(probs, entropy, (entropy - self.entropy / count).clamp_min(0.0))


class _Values:
    """Running moments (of Chan, Golub and LeVeque) for any distribution with a mean and a variance.

    Args:
        first: the distribution under one draw; that of K draws has the same shape, with K in front.
    """

    def __init__(self, first: Any) -> None:
        self.shape, self.count = first.mean.shape, 0
        self.mean: Any = 0.0
        self.squares: Any = 0.0
        self.noise: Any = 0.0

    def add(self, count: int, fn: Any) -> None:
        means, noise = (value.reshape(count, *self.shape) for value in (fn.mean, fn.variance))
        mean, before = means.mean(0), self.count
        self.count += count
        step = mean - self.mean
        self.mean = self.mean + step * (count / self.count)
        self.squares = self.squares + (means - mean).square().sum(0) + step.square() * (before * count / self.count)
        self.noise = self.noise + noise.sum(0)

    def result(self, count: int) -> ValuePrediction:
        epistemic = self.squares / count
        return ValuePrediction(self.mean, epistemic + self.noise / count, epistemic)


def _entropy(probs: Tensor, binary: bool) -> Tensor:
    terms = torch.special.entr(probs)
    return terms + torch.special.entr(1.0 - probs) if binary else terms.sum(-1)


@torch.no_grad()
def predict(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    x: Any,
    num_samples: int = 100,
    *,
    batch_size: int = 1000,
    site: str | None = None,
    progress: bool = False,
) -> ClassPrediction | ValuePrediction:
    r"""The posterior predictive of the targets, by draws of the weights.

    .. math:: p(y | x) \approx \frac{1}{S} \sum_{s=1}^{S} p(y | x, W_s), \qquad W_s \sim q(W)

    Sums are kept, not draws, and a DataLoader is asked for one batch after the other: memory grows neither with
    ``num_samples`` nor with the inputs. Each batch has draws of its own. Where data are fewer than ``batch_size``, and the
    model broadcasts over draws of its latents as a lifted network does, many draws go through it at once.

    Args:
        model: a Pyro model that takes the inputs alone (``y=None``) and then draws the targets.
        guide: its posterior.
        x: inputs, a tensor of shape ``(N, ...)`` or a packed sequence, or a tuple or dict of them as the model takes; or a
            DataLoader (or a list of batches), of whose batches the first part is the input. Each batch is moved to the
            device of model and guide. What is no tensor, such as a flag or None, goes with every batch. Packed sequences
            are run as one batch.
        num_samples: S >= 1.
        batch_size: data, times draws, in one run of the model.
        site: name of the targets' site, where the model draws several.
        progress: whether to show a bar.

    Returns:
        A :class:`ClassPrediction` for categorical and Bernoulli targets, else a :class:`ValuePrediction`.

    Raises:
        ValueError: for no draws, data or ``batch_size``, inputs that are not finite, or targets that cannot be told, or
            have no mean and variance; for several batches, if another plate is as long as that of the data each time.
    """
    if num_samples < 1:
        raise ValueError(f"num_samples={num_samples} draws nothing: use 1 or more")
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} holds nothing: use 1 or more")
    parts = []
    draws = TargetDraws(model, guide, site, batch_size)
    device = common_device(model, guide)
    with in_mode(model, False), in_mode(guide, False):
        for batch in tqdm(_batches(x, batch_size), disable=not progress, desc="predict"):
            batch = batch[0] if is_several(batch) else batch
            sums: _Classes | _Values | None = None
            for count, fn in draws(brought(batch, device), num_samples):
                if sums is None:
                    sums = _Classes(fn) if is_of_classes(fn) else _Values(fn)
                sums.add(count, fn)
            assert sums is not None
            parts.append(sums.result(num_samples))
    if not parts:
        raise ValueError("there is nothing to predict: x holds no data")
    return parts[0] if len(parts) == 1 else _joined(parts, draws.data_axis())


def _joined(parts: Sequence[ClassPrediction | ValuePrediction], axis: int) -> ClassPrediction | ValuePrediction:
    """Predictions of batches as one of all data."""
    return type(parts[0])(**{name: torch.cat([vars(part)[name] for part in parts], axis) for name in vars(parts[0])})


def _holds_packed(x: Any) -> bool:
    """Whether there are packed sequences, which no slice goes through."""
    return isinstance(x, tuple | Mapping) and any(map(is_packed, tree_leaves(x, is_leaf=is_packed)))


def _batches(x: Any, batch_size: int) -> Iterable[Any]:
    """Batches of which the first part is the input: the inputs, parts of them, or what a DataLoader gives."""
    if _holds_packed(x):
        return [(x,)]
    if isinstance(x, Tensor | tuple | Mapping):
        sizes = lengths(x)
        if len(sizes) != 1:
            raise ValueError(f"the inputs hold tensors of lengths {sorted(sizes)}: use one length, the number of data")
        size = sizes.pop()
        if 0 < size <= batch_size:
            return [(x,)]
        return [(part(x, slice(start, start + batch_size)),) for start in range(0, size, batch_size)]
    if not isinstance(x, Iterable):
        raise ValueError(f"x is a {type(x).__name__}: pass a tensor, a tuple or dict of tensors, or a DataLoader")
    return x
