"""Bayesian fine-tuning: the posterior is frozen at 0 outside masks, and trained on inside them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pyro_vbd.guide import VBDGuide
from pyro_vbd.posterior.masked import MaskedPosterior
from pyro_vbd.posterior.site_posteriors import GaussianPosterior, submodule_name
from pyro_vbd.relevance import check_masks

__all__ = ["restrict"]


def restrict(guide: VBDGuide, masks: Mapping[str, Tensor]) -> None:
    """Freeze a guide at 0 outside masks, for further training by :func:`~pyro_vbd.fit`. It is changed in place.

    Removed weights have mean 0, no noise and no gradient, and :func:`~pyro_vbd.masks` goes on removing them. A shared or
    fixed alpha holds for the kept weights alone. Under a prior whose scale is shared, removed weights count as zeros.
    The masks are part of the guide's ``state_dict``: a new guide that loads it is restricted too, and a restricted one
    refuses a state without them.

    Args:
        guide: a posterior with parameters.
        masks: by site, 1 where a weight stays, else 0: of :func:`~pyro_vbd.masks`, or your own; a site without one stays
            whole.

    Raises:
        ValueError: if a mask is of another network, holds other numbers than 0 and 1, or keeps nothing of a site.
    """
    posteriors = {s: q for s, q in guide.learned.items() if isinstance(q, GaussianPosterior | MaskedPosterior)}
    check_masks(masks, {site: posterior.loc for site, posterior in posteriors.items()})
    for site, mask in masks.items():
        if not bool(mask.any()):
            raise ValueError(
                f"the mask of {site!r} keeps nothing, and nothing of it could be trained: use a higher threshold"
            )
    for site, mask in masks.items():
        posterior = posteriors[site]
        if isinstance(posterior, MaskedPosterior):
            posterior.mask.copy_((mask != 0) & (posterior.mask != 0))
        else:
            guide.posteriors[submodule_name(site)] = MaskedPosterior(posterior, (mask != 0).to(posterior.loc))
