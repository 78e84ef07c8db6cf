"""The Laplace prior: a Gaussian with an exponential variance."""

from scipy import stats

from pyro_vbd.priors import Laplace
from tests.priors.families import FamilyTests


class TestLaplace(FamilyTests):
    make = Laplace
    on = "variance"
    ranges = {"scale": (1e-2, 1e2)}

    def density(self, scale):
        return stats.expon(scale=2 * scale**2)

    def log_marginal(self, w, scale):
        return stats.laplace(scale=scale).logpdf(w)
