"""A half-normal scale."""

import math

import numpy as np
from scipy import special, stats

from pyro_vbd.priors import HalfNormal
from tests.priors.families import FamilyTests


class TestHalfNormal(FamilyTests):
    make = HalfNormal
    on = "scale"
    ranges = {"scale": (1e-3, 1e2)}

    def density(self, scale):
        return stats.halfnorm(scale=scale)

    def log_marginal(self, w, scale):
        return np.log(special.k0e(w / scale)) - w / scale - np.log(math.pi * scale)
