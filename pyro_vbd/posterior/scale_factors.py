r"""A weight's prior scale as a product of latents, :math:`s = c \prod_j g_j^{p_j}`, and sums over what shares one g."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributions import Transform

from pyro_vbd.priors.prior import POWERS

__all__ = ["Factor", "Weight"]


class Factor(nn.Module):
    """One factor g^p of a weight's scale, p in {1/2, 1, -1/2}.

    Args:
        site: name of the latent g.
        power: p.
        index: for every element of the weight, the number of the element of g behind it; of the weight's shape.
        size: the number of elements of g.
        link: a transform of g that takes g's place, where there is one.
    """

    index: Tensor | None

    def __init__(self, site: str, power: float, index: Tensor, size: int, link: Transform | None = None) -> None:
        super().__init__()
        self.site, self.power, self.size, self.link = site, power, size, link
        #: Dimensions of the weight that share one g, where g is otherwise in the weight's own order.
        self.shared = tuple(d for d in range(index.dim()) if bool((index == index.narrow(d, 0, 1)).all()))
        first = index
        for d in self.shared:
            first = first.narrow(d, 0, 1)
        self.shape = first.shape
        in_order = torch.equal(first.flatten(), torch.arange(size, device=index.device))
        self.register_buffer("index", None if in_order else index, persistent=False)

    @property
    def on(self) -> str:
        """What g is to the weight: ``"variance"``, ``"scale"`` or ``"precision"``."""
        return next(on for on, power in POWERS.items() if power == self.power)

    def spread(self, gamma: Tensor) -> Tensor:
        """g^p behind every element of the weight; broadcasts to the weight's shape."""
        scale = (gamma if self.link is None else self.link(gamma)).pow(self.power)
        return scale.reshape(self.shape) if self.index is None else scale.reshape(-1)[self.index]

    def variance(self, gamma: Tensor) -> Tensor:
        """The square of the factor, elementwise in g: the variance of a weight of which it is the only one."""
        return (gamma if self.link is None else self.link(gamma)).pow(2.0 * self.power)

    def of_variance(self, variance: Tensor) -> Tensor:
        """g of :meth:`variance`."""
        gamma = variance.pow(0.5 / self.power)
        return gamma if self.link is None else self.link.inv(gamma)  # type: ignore[no-any-return]

    def total(self, values: Tensor) -> Tensor:
        """Sum of ``values``, of the weight's shape, over the elements that share one g; of shape ``(size,)``."""
        if self.index is not None:
            return values.new_zeros(self.size).index_add(0, self.index.flatten(), values.flatten())
        return (values.sum(self.shared) if self.shared else values).reshape(self.size)


class Weight(nn.Module):
    """A latent that is Gaussian around 0, with its prior scale c * prod g^p.

    Args:
        site: name of the latent.
        constant: c, of the weight's shape.
        factors: the factors g^p; none where the scale is fixed or unknown.
    """

    constant: Tensor

    def __init__(self, site: str, constant: Tensor, factors: list[Factor]) -> None:
        super().__init__()
        self.site = site
        self.shape = constant.shape
        first = constant.flatten()[0]
        uniform = bool(((constant / first - 1.0).abs() < 1e-5).all())
        self.register_buffer("constant", first.clone() if uniform else constant, persistent=False)
        #: Whether c = 1, up to rounding: spares a division at every step.
        self.plain = uniform and abs(float(first) - 1.0) < 1e-5
        self.factors = nn.ModuleList(factors)

    def scale_without(self, site: str | None, gammas: Mapping[str, Tensor]) -> Tensor | None:
        """c times the product of the factors other than ``site``, broadcasting to the weight; None where it is 1."""
        scale = None if self.plain else self.constant
        for factor in self.factors:
            assert isinstance(factor, Factor)
            if factor.site != site:
                part = factor.spread(gammas[factor.site])
                scale = part if scale is None else scale * part
        return scale

    def factor(self, site: str) -> Factor:
        """The factor whose latent is ``site``."""
        return next(part for part in self.factors if isinstance(part, Factor) and part.site == site)
