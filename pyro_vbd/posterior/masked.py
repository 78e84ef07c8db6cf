"""A Gaussian posterior frozen at 0 outside a mask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pyro.distributions import Normal
from torch import Tensor, nn
from torch.distributions import kl_divergence, register_kl
from torch.distributions.utils import lazy_property

from pyro_vbd.posterior.mean_field import AdditiveNormal, MeanFieldNormal, MultiplicativeNormal
from pyro_vbd.posterior.site_posteriors import GaussianPosterior, SitePosterior, gaussian_quantile

__all__ = ["MaskedMultiplicativeNormal", "MaskedPosterior", "make_room_for_masks"]

#: log variance of a removed weight: its KL under a scale that follows it is 0, and its noise is nothing.
_NO_NOISE = -60.0


class MaskedMultiplicativeNormal(MultiplicativeNormal):
    r""":math:`N(\theta, \alpha\theta^2)` where a weight is kept; elsewhere 0 without noise, whatever alpha it shares.

    Args:
        loc: :math:`\theta`, 0 where a weight is removed.
        log_alpha: :math:`\log\alpha` of the kept weights, broadcast against ``loc``.
        kept: True where a weight stays, of the shape of ``loc``.
    """

    def __init__(self, loc: Tensor, log_alpha: Tensor, kept: Tensor, validate_args: bool | None = None) -> None:
        self.kept = kept
        super().__init__(loc, log_alpha, validate_args)

    @lazy_property
    def variance(self) -> Tensor:
        return (self.log_alpha.exp() * self.loc.square()).where(self.kept, self.removed.variance)

    @lazy_property
    def inverse_alpha(self) -> Tensor:
        return self.log_alpha.neg().exp().where(self.kept, 0.0)

    @lazy_property
    def removed(self) -> AdditiveNormal:
        """The distribution of the removed weights, which have no part in a shared alpha."""
        return AdditiveNormal(torch.zeros_like(self.loc), torch.full_like(self.loc, _NO_NOISE))

    def expand(self, batch_shape: Any, _instance: Any = None) -> MaskedMultiplicativeNormal:
        loc, log_alpha, kept = (value.expand(batch_shape) for value in (self.loc, self.log_alpha, self.kept))
        return self._lend(MaskedMultiplicativeNormal(loc, log_alpha, kept))


@register_kl(MaskedMultiplicativeNormal, Normal)  # type: ignore[untyped-decorator]
def _kl_masked_normal(q: MaskedMultiplicativeNormal, p: Normal) -> Tensor:
    of_kept = kl_divergence(MultiplicativeNormal(q.loc, q.log_alpha), p)
    return of_kept.where(q.kept, kl_divergence(q.removed, p))


class MaskedPosterior(SitePosterior):
    """A Gaussian posterior whose removed weights are 0, without noise and without a gradient.

    Args:
        posterior: the posterior; its parameters become this one's.
        mask: 1 where a weight stays, of the weights' shape.
    """

    mask: Tensor

    def __init__(self, posterior: GaussianPosterior, mask: Tensor) -> None:
        super().__init__(posterior.label)
        self.multiplicative = posterior.multiplicative
        self.loc = posterior.loc
        if isinstance(getattr(posterior, "log_alpha", None), nn.Parameter):
            self.log_alpha = posterior.log_alpha
        elif posterior.multiplicative:
            self.register_buffer("log_alpha", posterior.log_alpha)
        else:
            self.log_var = posterior.log_var
        self.register_buffer("mask", mask.detach().to(self.loc).clone())

    def distribution(self) -> MeanFieldNormal:
        loc, kept = self.parameter("loc") * self.mask, self.mask != 0
        if self.multiplicative:
            return MaskedMultiplicativeNormal(loc, self.parameter("log_alpha"), kept)
        return AdditiveNormal(loc, self.parameter("log_var").where(kept, _NO_NOISE))

    def quantile(self, probability: Tensor) -> Tensor:
        return gaussian_quantile(self.distribution(), probability) * self.mask


def make_room_for_masks(posteriors: nn.ModuleDict, state_dict: Mapping[str, Any], prefix: str) -> None:
    """Mask those posteriors that have a mask in a state they are about to load: none is lost or kept unnoticed.

    Args:
        posteriors: those of a guide; the parameters stay the same objects.
        state_dict: the state.
        prefix: how its keys for ``posteriors`` begin.

    Raises:
        RuntimeError: if the state is of whole posteriors where these are masked.
    """
    whole = []
    for key, posterior in list(posteriors.items()):
        mask = state_dict.get(f"{prefix}{key}.mask")
        if isinstance(posterior, GaussianPosterior) and mask is not None and mask.shape == posterior.loc.shape:
            posteriors[key] = MaskedPosterior(posterior, torch.ones_like(posterior.loc))
        elif isinstance(posterior, MaskedPosterior) and mask is None and f"{prefix}{key}.loc" in state_dict:
            whole.append(posterior.label)
    if whole:
        raise RuntimeError(
            f"the state has no masks of {whole}, which are restricted here: load it into a new guide, and restrict that"
        )
