"""Multiplicative noise for any network: the dropouts that variational Bayesian dropout is compared with."""

from pyro_vbd.noise.adversarial import AdversarialDropout as AdversarialDropout
from pyro_vbd.noise.adversarial import adversarial_loss as adversarial_loss
from pyro_vbd.noise.concrete import ConcreteDropout as ConcreteDropout
from pyro_vbd.noise.gaussian import GaussianNoise as GaussianNoise
from pyro_vbd.noise.gaussian_dropout import GaussianDropout as GaussianDropout
from pyro_vbd.noise.log_normal import LogNormalGate as LogNormalGate
from pyro_vbd.noise.penalty import Penalised as Penalised
from pyro_vbd.noise.penalty import penalty as penalty

__all__ = [
    "AdversarialDropout",
    "ConcreteDropout",
    "GaussianDropout",
    "GaussianNoise",
    "LogNormalGate",
    "Penalised",
    "adversarial_loss",
    "penalty",
]
