"""Bayesian fine-tuning: a posterior frozen at 0 outside a mask."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pyro_vbd.guide import VBDGuide
from pyro_vbd.posterior.mean_field import AdditiveNormal, MeanFieldNormal, MultiplicativeNormal
from pyro_vbd.posterior.site_posteriors import GaussianPosterior, SitePosterior, submodule_name

__all__ = ["MaskedPosterior", "restrict"]

#: log variance of a removed weight: its KL under a scale that follows it is 0, and its noise is nothing.
_NO_NOISE = -60.0


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
        if isinstance(getattr(posterior, "log_alpha", None), torch.nn.Parameter):
            self.log_alpha = posterior.log_alpha
        elif posterior.multiplicative:
            self.register_buffer("log_alpha", posterior.log_alpha)
        else:
            self.log_var = posterior.log_var
        self.register_buffer("mask", mask.detach().to(self.loc).clone())

    def distribution(self) -> MeanFieldNormal:
        loc = self.parameter("loc") * self.mask
        if self.multiplicative:
            return MultiplicativeNormal(loc, self.parameter("log_alpha"))
        return AdditiveNormal(loc, self.parameter("log_var").where(self.mask != 0, _NO_NOISE))

    def quantile(self, probability: Tensor) -> Tensor:
        q = self.distribution()
        values: Tensor = q.icdf(probability.reshape(probability.shape + (1,) * q.loc.dim()))
        return values * self.mask


def restrict(guide: VBDGuide, masks: Mapping[str, Tensor]) -> None:
    """Freeze a guide at 0 outside masks, for further training by :func:`~pyro_vbd.fit`. It is changed in place.

    Removed weights have mean 0, no noise and no gradient, and :func:`~pyro_vbd.masks` goes on removing them. Under a prior
    whose scale is shared they count as zeros of their group.

    Args:
        guide: a posterior with parameters.
        masks: by site, 1 where a weight stays: of :func:`~pyro_vbd.masks`, or your own; a site without one stays whole.

    Raises:
        ValueError: if a mask is of another network, or keeps nothing of a site.
    """
    chosen = {}
    for site, mask in masks.items():
        key = submodule_name(site)
        posterior = guide.posteriors[key] if key in guide.posteriors else None
        if not isinstance(posterior, GaussianPosterior | MaskedPosterior):
            raise ValueError(f"there is a mask for {site!r}, which is no weight of {guide.name}: it is of another network")
        if mask.shape != posterior.loc.shape:
            raise ValueError(
                f"the mask of {site!r} has shape {tuple(mask.shape)}, the weight {tuple(posterior.loc.shape)}: it is of "
                "another network"
            )
        if not bool((mask != 0).any()):
            raise ValueError(
                f"the mask of {site!r} keeps nothing, and nothing of it could be trained: use a higher threshold"
            )
        chosen[key] = posterior, mask
    for key, (posterior, mask) in chosen.items():
        if isinstance(posterior, MaskedPosterior):
            posterior.mask.copy_((mask != 0) & (posterior.mask != 0))
        else:
            guide.posteriors[key] = MaskedPosterior(posterior, (mask != 0).to(posterior.loc))
