"""A positive distribution cut off below a floor, for hyperpriors whose density is unbounded at 0."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_vbd.distributions.inspection import map_tensors
from pyro_vbd.distributions.quadrature import Grid, grid

__all__ = ["Truncated"]


class Truncated(dist.TorchDistribution):
    r"""A positive distribution cut off below a floor: :math:`p(\gamma) \propto p_0(\gamma)` for :math:`\gamma \ge f`.

    The mass above the floor is found by quadrature in :math:`\log(\gamma - f)`; draws invert the distribution function.

    Args:
        base: :math:`p_0`.
        floor: f > 0, of the batch shape of ``base``.
    """

    arg_constraints = {"floor": constraints.positive}

    def __init__(self, base: dist.TorchDistribution, floor: Tensor, validate_args: bool | None = None) -> None:
        self.base, self.floor = base, floor
        super().__init__(base.batch_shape, validate_args=validate_args)
        self._log_mass = self._curve(160).log_integral().to(floor)

    @property
    def support(self) -> Any:
        return constraints.greater_than_eq(self.floor)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Truncated:
        other = map_tensors(self, lambda value: value.expand(batch_shape))
        other.base = self.base.expand(batch_shape)
        dist.TorchDistribution.__init__(other, torch.Size(batch_shape), validate_args=False)
        other._validate_args = self._validate_args
        return other

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        inside = self.base.log_prob(value) - self._log_mass
        return torch.where(value >= self.floor, inside, -torch.inf)

    @torch.no_grad()
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:
        uniform = torch.rand(self._extended_shape(sample_shape), dtype=torch.float64, device=self.floor.device)
        above = self._curve(1000).quantile(uniform).exp()
        return (self.floor + above.to(self.floor)).clamp_max(torch.finfo(self.floor.dtype).max)

    def _curve(self, nodes: int) -> Grid:
        base, floor = map_tensors(self.base, Tensor.double), self.floor.double()
        return grid(lambda x: base.log_prob(floor + x.exp()) + x, floor.detach(), nodes)
