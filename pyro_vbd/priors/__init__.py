"""Priors for the weights of a network: what they declare in Pyro, and what follows from it in closed form."""

from pyro_vbd.priors.gaussian import Gaussian as Gaussian
from pyro_vbd.priors.gaussian_uniform import GaussianUniform as GaussianUniform
from pyro_vbd.priors.log_uniform import ImproperLogUniform as ImproperLogUniform
from pyro_vbd.priors.log_uniform import LogUniform as LogUniform
from pyro_vbd.priors.log_uniform import kingma as kingma
from pyro_vbd.priors.log_uniform import molchanov as molchanov
from pyro_vbd.priors.optimum import find_optimum as find_optimum
from pyro_vbd.priors.optimum import register_optimum as register_optimum
from pyro_vbd.priors.prior import HierarchicalPrior as HierarchicalPrior
from pyro_vbd.priors.prior import Prior as Prior
from pyro_vbd.priors.scale_mixture import ScaleMixture as ScaleMixture

__all__ = [
    "Gaussian",
    "GaussianUniform",
    "HierarchicalPrior",
    "ImproperLogUniform",
    "LogUniform",
    "Prior",
    "ScaleMixture",
    "find_optimum",
    "kingma",
    "molchanov",
    "register_optimum",
]
