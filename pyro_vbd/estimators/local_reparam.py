"""Local reparameterisation as an effect: inside it, Gaussian latents are Gaussian tensors instead of draws."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro.poutine.messenger import Messenger

from pyro_vbd.distributions import base_distribution
from pyro_vbd.estimators.gaussian_tensor import GaussianTensor
from pyro_vbd.posterior.mean_field import MeanFieldNormal

__all__ = ["LocalReparam"]


class LocalReparam(Messenger):
    r"""Turns the Gaussian sites of a guide into Gaussian tensors, which are sampled where they are used.

    .. math:: y_{no} \sim N\Big(\sum_k x_{nk} \theta_{ok}, \; \sum_k x_{nk}^2 \sigma_{ok}^2\Big)

    for the outputs of a linear map of weights :math:`N(\theta, \sigma^2)`: eq. (3) of Liu et al. 2019, after Kingma,
    Salimans and Welling 2015.

    Enter it around the run of the guide, and let the model replay what came out. Linear maps then sample their outputs
    instead of the weights; the expectation of a loss is the same wherever a datum meets each weight once.

    Args:
        where: which sites, by name. All by default.
        kind: the tensor that they become.

    Note:
        A convolution, a sequence, a recurrence or a tied weight meets a weight more than once for one datum. Local noise is
        independent at each meeting: each output keeps its mean and its variance, their joint distribution is another one.
        What multiplies a weight is taken for data, unless it is a parameter or a weight itself: for a weight that a
        constant matrix multiplies before it meets the data, ``x @ (P @ w)``, sample the weight.
    """

    def __init__(
        self, where: Callable[[str], bool] = lambda name: True, kind: type[GaussianTensor] = GaussianTensor
    ) -> None:
        super().__init__()
        self._where, self._kind = where, kind

    def _pyro_sample(self, msg: Any) -> None:
        if msg["is_observed"] or msg["value"] is not None or not self._where(msg["name"]):
            return
        posterior = base_distribution(msg["fn"])
        if isinstance(posterior, MeanFieldNormal):
            msg["value"] = self._kind(posterior.loc, posterior.variance)
            msg["done"] = True
