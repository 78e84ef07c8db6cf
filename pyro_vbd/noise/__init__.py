"""Multiplicative noise on inputs, units, channels and heads, as modules: gates, and the dropouts they are compared with."""

from pyro_vbd.noise.add_gates import add_gates as add_gates
from pyro_vbd.noise.adversarial import AdversarialDropout as AdversarialDropout
from pyro_vbd.noise.adversarial import adversarial_loss as adversarial_loss
from pyro_vbd.noise.attention import HeadwiseAttention as HeadwiseAttention
from pyro_vbd.noise.concrete import ConcreteDropout as ConcreteDropout
from pyro_vbd.noise.gate import Gate as Gate
from pyro_vbd.noise.gaussian import GaussianNoise as GaussianNoise
from pyro_vbd.noise.gaussian_dropout import GaussianDropout as GaussianDropout
from pyro_vbd.noise.log_normal import LogNormalGate as LogNormalGate
from pyro_vbd.noise.penalty import Penalised as Penalised
from pyro_vbd.noise.penalty import penalty as penalty

__all__ = [
    "AdversarialDropout",
    "ConcreteDropout",
    "Gate",
    "GaussianDropout",
    "GaussianNoise",
    "HeadwiseAttention",
    "LogNormalGate",
    "Penalised",
    "add_gates",
    "adversarial_loss",
    "penalty",
]
