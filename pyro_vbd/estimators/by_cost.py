"""The estimator that is chosen by cost: outputs of linear maps are sampled, and weights of convolutions.

Local reparameterisation takes two products where a plain layer has one. In a linear map that is cheap beside the rest of a
step, and its gradients have the least noise; in a convolution it nearly doubles the step, and draws the noise of each place
apart, while one draw of the few weights costs next to nothing and each datum meets one and the same weight everywhere.
"""

from __future__ import annotations

from pyro_vbd.estimators.gaussian_tensor import GaussianTensor
from pyro_vbd.estimators.rules import CONVOLUTIONS

__all__ = ["ByCostTensor"]


class ByCostTensor(GaussianTensor):
    """A :class:`~pyro_vbd.estimators.gaussian_tensor.GaussianTensor` that convolutions read as one draw."""


ByCostTensor.rules = {function: rule for function, rule in GaussianTensor.rules.items() if function not in CONVOLUTIONS}
