"""Distributions that neither torch nor Pyro has, and looks inside those of any kind."""

from pyro_vbd.distributions.centred_normal import CentredNormal as CentredNormal
from pyro_vbd.distributions.inspection import base_distribution as base_distribution
from pyro_vbd.distributions.inspection import is_positive as is_positive
from pyro_vbd.distributions.inspection import map_tensors as map_tensors
from pyro_vbd.distributions.inspection import tensors as tensors
from pyro_vbd.distributions.inspection import unchecked as unchecked
from pyro_vbd.distributions.inspection import unmasked as unmasked
from pyro_vbd.distributions.positive import BetaPrime as BetaPrime
from pyro_vbd.distributions.positive import GeneralizedInverseGaussian as GeneralizedInverseGaussian
from pyro_vbd.distributions.positive import HalfStudentT as HalfStudentT
from pyro_vbd.distributions.positive import Reciprocal as Reciprocal
from pyro_vbd.distributions.positive import TwoPoint as TwoPoint
from pyro_vbd.distributions.truncated import Truncated as Truncated

__all__ = [
    "BetaPrime",
    "CentredNormal",
    "GeneralizedInverseGaussian",
    "HalfStudentT",
    "Reciprocal",
    "Truncated",
    "TwoPoint",
    "base_distribution",
    "is_positive",
    "map_tensors",
    "tensors",
    "unchecked",
    "unmasked",
]
