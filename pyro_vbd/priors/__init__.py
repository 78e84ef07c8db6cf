"""Priors for the weights of a network: what they declare in Pyro, and what follows from it in closed form."""

from pyro_vbd.priors.beta_prime import BetaPrime as BetaPrime
from pyro_vbd.priors.evidence import find_evidence as find_evidence
from pyro_vbd.priors.evidence import register_evidence as register_evidence
from pyro_vbd.priors.gamma_precision import GammaPrecision as GammaPrecision
from pyro_vbd.priors.gaussian import Gaussian as Gaussian
from pyro_vbd.priors.gaussian_uniform import GaussianUniform as GaussianUniform
from pyro_vbd.priors.generalized_inverse_gaussian import GeneralizedInverseGaussian as GeneralizedInverseGaussian
from pyro_vbd.priors.half_normal import HalfNormal as HalfNormal
from pyro_vbd.priors.half_student_t import HalfStudentT as HalfStudentT
from pyro_vbd.priors.horseshoe import Horseshoe as Horseshoe
from pyro_vbd.priors.hyperparameter import Learned as Learned
from pyro_vbd.priors.jeffreys import Jeffreys as Jeffreys
from pyro_vbd.priors.laplace import Laplace as Laplace
from pyro_vbd.priors.log_uniform import ImproperLogUniform as ImproperLogUniform
from pyro_vbd.priors.log_uniform import LogUniform as LogUniform
from pyro_vbd.priors.log_uniform import kingma as kingma
from pyro_vbd.priors.log_uniform import molchanov as molchanov
from pyro_vbd.priors.normal_gamma import NormalGamma as NormalGamma
from pyro_vbd.priors.optimum import find_optimum as find_optimum
from pyro_vbd.priors.optimum import register_optimum as register_optimum
from pyro_vbd.priors.pc_prior import PCPrior as PCPrior
from pyro_vbd.priors.prior import HierarchicalPrior as HierarchicalPrior
from pyro_vbd.priors.prior import Prior as Prior
from pyro_vbd.priors.regularized_horseshoe import RegularizedHorseshoe as RegularizedHorseshoe
from pyro_vbd.priors.regularized_horseshoe import Slab as Slab
from pyro_vbd.priors.scale_mixture import ScaleMixture as ScaleMixture
from pyro_vbd.priors.spike_and_slab import SpikeAndSlab as SpikeAndSlab
from pyro_vbd.priors.student_t import StudentT as StudentT

__all__ = [
    "BetaPrime",
    "GammaPrecision",
    "Gaussian",
    "GaussianUniform",
    "GeneralizedInverseGaussian",
    "HalfNormal",
    "HalfStudentT",
    "HierarchicalPrior",
    "Horseshoe",
    "ImproperLogUniform",
    "Jeffreys",
    "Laplace",
    "Learned",
    "LogUniform",
    "NormalGamma",
    "PCPrior",
    "Prior",
    "RegularizedHorseshoe",
    "ScaleMixture",
    "Slab",
    "SpikeAndSlab",
    "StudentT",
    "find_evidence",
    "find_optimum",
    "kingma",
    "molchanov",
    "register_evidence",
    "register_optimum",
]
