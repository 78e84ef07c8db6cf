"""Variational Bayesian dropout with hierarchical priors, for Pyro: sparse and calibrated Bayesian neural networks."""

from pyro_vbd import monitors as monitors
from pyro_vbd import noise as noise
from pyro_vbd import priors as priors
from pyro_vbd import schedules as schedules
from pyro_vbd.arviz import to_arviz as to_arviz
from pyro_vbd.batches import Batches as Batches
from pyro_vbd.checkpoint import load_checkpoint as load_checkpoint
from pyro_vbd.checkpoint import save_checkpoint as save_checkpoint
from pyro_vbd.elbo import VBD_ELBO as VBD_ELBO
from pyro_vbd.elbo import ELBOTerms as ELBOTerms
from pyro_vbd.evaluation import negative_log_likelihood as negative_log_likelihood
from pyro_vbd.guide import VBDGuide as VBDGuide
from pyro_vbd.likelihoods import GaussianLikelihood as GaussianLikelihood
from pyro_vbd.local_reparam import LocalReparam as LocalReparam
from pyro_vbd.network import lift as lift
from pyro_vbd.pareto_k import pareto_k as pareto_k
from pyro_vbd.predict import predict as predict
from pyro_vbd.relevance import masks as masks
from pyro_vbd.relevance import point_network as point_network
from pyro_vbd.relevance import sparsity as sparsity
from pyro_vbd.supervised import Classifier as Classifier
from pyro_vbd.supervised import Regressor as Regressor
from pyro_vbd.training import Fit as Fit
from pyro_vbd.training import fit as fit
from pyro_vbd.version import __version__ as __version__

__all__ = [
    "VBD_ELBO",
    "Batches",
    "Classifier",
    "ELBOTerms",
    "Fit",
    "GaussianLikelihood",
    "LocalReparam",
    "Regressor",
    "VBDGuide",
    "__version__",
    "fit",
    "lift",
    "load_checkpoint",
    "masks",
    "monitors",
    "negative_log_likelihood",
    "noise",
    "pareto_k",
    "point_network",
    "predict",
    "priors",
    "save_checkpoint",
    "schedules",
    "sparsity",
    "to_arviz",
]
