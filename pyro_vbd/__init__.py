"""Variational Bayesian dropout with hierarchical priors, for Pyro: sparse and calibrated Bayesian neural networks."""

from pyro_vbd import noise as noise
from pyro_vbd import priors as priors
from pyro_vbd.arviz import to_arviz as to_arviz
from pyro_vbd.compiling.compiled_elbo import CompiledELBO as CompiledELBO
from pyro_vbd.compiling.compiled_elbo import compile as compile
from pyro_vbd.compression import compress as compress
from pyro_vbd.compression import cut as cut
from pyro_vbd.compression import fine_tune as fine_tune
from pyro_vbd.compression import load_safetensors as load_safetensors
from pyro_vbd.compression import load_sparse as load_sparse
from pyro_vbd.compression import restrict as restrict
from pyro_vbd.compression import save_onnx as save_onnx
from pyro_vbd.compression import save_safetensors as save_safetensors
from pyro_vbd.compression import save_sparse as save_sparse
from pyro_vbd.compression import sweep as sweep
from pyro_vbd.elbo import VBD_ELBO as VBD_ELBO
from pyro_vbd.elbo_terms import ELBOTerms as ELBOTerms
from pyro_vbd.estimators.local_reparam import LocalReparam as LocalReparam
from pyro_vbd.guide import VBDGuide as VBDGuide
from pyro_vbd.likelihoods import GaussianLikelihood as GaussianLikelihood
from pyro_vbd.network import lift as lift
from pyro_vbd.noise import Gate as Gate
from pyro_vbd.noise import HeadwiseAttention as HeadwiseAttention
from pyro_vbd.noise import add_gates as add_gates
from pyro_vbd.pareto_k import pareto_k as pareto_k
from pyro_vbd.predict import predict as predict
from pyro_vbd.relevance import masks as masks
from pyro_vbd.relevance import point_network as point_network
from pyro_vbd.relevance import relevance as relevance
from pyro_vbd.relevance import signal_to_noise as signal_to_noise
from pyro_vbd.relevance import sparsity as sparsity
from pyro_vbd.supervised import Classifier as Classifier
from pyro_vbd.supervised import Regressor as Regressor
from pyro_vbd.training import monitors as monitors
from pyro_vbd.training import schedules as schedules
from pyro_vbd.training.batches import Batches as Batches
from pyro_vbd.training.checkpoint import load_checkpoint as load_checkpoint
from pyro_vbd.training.checkpoint import save_checkpoint as save_checkpoint
from pyro_vbd.training.evaluation import negative_log_likelihood as negative_log_likelihood
from pyro_vbd.training.fit import fit as fit
from pyro_vbd.training.members import fit_members as fit_members
from pyro_vbd.training.run import Fit as Fit
from pyro_vbd.version import __version__ as __version__

__all__ = [
    "VBD_ELBO",
    "Batches",
    "Classifier",
    "CompiledELBO",
    "ELBOTerms",
    "Fit",
    "Gate",
    "GaussianLikelihood",
    "HeadwiseAttention",
    "LocalReparam",
    "Regressor",
    "VBDGuide",
    "__version__",
    "add_gates",
    "compile",
    "compress",
    "cut",
    "fine_tune",
    "fit",
    "fit_members",
    "lift",
    "load_checkpoint",
    "load_safetensors",
    "load_sparse",
    "masks",
    "monitors",
    "negative_log_likelihood",
    "noise",
    "pareto_k",
    "point_network",
    "predict",
    "priors",
    "relevance",
    "restrict",
    "save_checkpoint",
    "save_onnx",
    "save_safetensors",
    "save_sparse",
    "schedules",
    "signal_to_noise",
    "sparsity",
    "sweep",
    "to_arviz",
]
