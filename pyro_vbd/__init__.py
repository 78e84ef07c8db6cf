"""Variational Bayesian dropout with hierarchical priors, for Pyro: sparse and calibrated Bayesian neural networks."""

from pyro_vbd import priors as priors
from pyro_vbd.elbo import VBD_ELBO as VBD_ELBO
from pyro_vbd.elbo import ELBOTerms as ELBOTerms
from pyro_vbd.guide import VBDGuide as VBDGuide
from pyro_vbd.likelihoods import GaussianLikelihood as GaussianLikelihood
from pyro_vbd.local_reparam import LocalReparam as LocalReparam
from pyro_vbd.network import lift as lift
from pyro_vbd.supervised import Classifier as Classifier
from pyro_vbd.supervised import Regressor as Regressor
from pyro_vbd.version import __version__ as __version__
