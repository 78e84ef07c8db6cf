"""Adversarial dropout: the mask that would hurt most, close to a random one, as a regulariser of supervised learning."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyro_vbd.noise.gaussian import checked_rate
from pyro_vbd.random_state import forked_random_state

__all__ = ["AdversarialDropout", "adversarial_loss", "adversarial_mask"]


class AdversarialDropout(nn.Module):
    """Where the adversary of :func:`adversarial_loss` may switch activations; outside that loss, binary dropout.

    Args:
        delta: the share of each datum's activations that it may switch, in [0, 1).
        p: rate of the random dropout from which it starts, in [0, 1); the released code has 0 here.

    Raises:
        ValueError: for numbers out of range.
    """

    def __init__(self, delta: float = 0.05, p: float = 0.0) -> None:
        super().__init__()
        if not 0.0 <= delta < 1.0:
            raise ValueError(f"delta={delta} is no share of the activations: use a number from 0 to below 1")
        self.delta, self.p = delta, checked_rate(p)
        # while the loss is at work, one for each call: the masks that the adversary looks at, and those that it has made
        self._recorded: list[Tensor] | None = None
        self._masks: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        # drawn also where another one takes its place: the noise behind this layer is then the same
        mask = torch.empty_like(x).bernoulli_(1.0 - self.p) if self.p else torch.ones_like(x)
        if self._masks:
            return x * self._masks.pop(0)
        if self._recorded is not None:
            self._recorded.append(mask.requires_grad_())
        return x * mask / (1.0 - self.p)

    def extra_repr(self) -> str:
        """The share and the rate."""
        return f"delta={self.delta}, p={self.p}"


def adversarial_loss(
    net: nn.Module,
    x: Tensor,
    y: Tensor,
    weight: float | Tensor = 1.0,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Tensor:
    r"""Supervised adversarial dropout (SAdD).

    .. math:: L = \ell(y, f(x; \epsilon)) + \lambda\, \ell(y, f(x; \epsilon^{adv})), \qquad
              \lVert \epsilon^{adv} - \epsilon \rVert_0 \le \delta H

    Park et al., *Adversarial Dropout for Supervised and Semi-supervised Learning*, AAAI 2018
    (arXiv:1707.03631), after the released code (sungraepark/Adversarial-Dropout). The first term has noise of its own. In
    the second all other noise of the network is the same as in the run that the adversary looked at.

    Args:
        net: a network with at least one :class:`AdversarialDropout`, in training mode.
        x: inputs.
        y: targets.
        weight: lambda.
        loss: of outputs and targets, a mean or a sum over the batch.

    Raises:
        ValueError: if the network has no :class:`AdversarialDropout`, does not call one, or is in evaluation mode.
    """
    layers = [module for module in net.modules() if isinstance(module, AdversarialDropout)]
    if not layers or not all(layer.training for layer in layers):
        raise ValueError(f"{type(net).__name__} has no AdversarialDropout in training mode: put one in, and call train()")
    plain = loss(net(x), y)
    try:
        for layer in layers:
            layer._recorded = []
        with forked_random_state(), torch.enable_grad():
            looked_at = loss(net(x), y)
            if idle := [n for n, module in net.named_modules() if module in layers and not module._recorded]:
                raise ValueError(f"the network never calls its AdversarialDropout {idle}: take it out, or call it")
            calls = [(layer, mask) for layer in layers for mask in layer._recorded or ()]
            gradients = torch.autograd.grad(looked_at, [mask for _, mask in calls])
        for layer in layers:
            layer._recorded = None
        for (layer, mask), gradient in zip(calls, gradients, strict=True):
            layer._masks.append(adversarial_mask(mask.detach(), gradient, layer.delta))
        return plain + weight * loss(net(x), y)
    finally:
        for layer in layers:
            layer._recorded, layer._masks = None, []


def adversarial_mask(mask: Tensor, gradient: Tensor, delta: float) -> Tensor:
    r"""The mask that raises the loss most, to first order, with at most :math:`\lfloor \delta H \rfloor` switches a datum.

    Those entries are switched where a switch raises the loss (1 with a negative gradient, 0 with a positive one), those
    of largest gradient first; then each datum's mask is scaled to mean 1.

    Args:
        mask: of zeros and ones, of shape ``(B, ...)``.
        gradient: of the loss in the mask.
        delta: share of the H entries of a datum.
    """
    flat, slope = mask.flatten(1), gradient.flatten(1)
    limit = int(delta * flat.size(1))
    if limit:
        gain = torch.where((2.0 * flat - 1.0) * slope < 0.0, slope.abs(), 0.0)
        switched = torch.zeros_like(flat)
        top = gain.topk(limit, dim=1)
        switched.scatter_(1, top.indices, (top.values > 0.0).to(flat))
        flat = flat + switched * (1.0 - 2.0 * flat)
    return (flat * (flat.size(1) / flat.sum(1, keepdim=True).clamp_min(1.0))).reshape(mask.shape)
