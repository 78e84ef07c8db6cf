"""The Student-t prior: a Gaussian with an inverse-gamma variance."""

from types import SimpleNamespace

import torch
from scipy import stats
from torch.testing import assert_close

from pyro_vbd.priors import StudentT
from pyro_vbd.priors.student_t import inverse_gamma_variance
from tests.priors.families import FamilyTests


class TestStudentT(FamilyTests):
    make = StudentT
    on = "variance"
    ranges = {"df": (0.3, 30.0), "scale": (1e-3, 1e2)}

    def density(self, df, scale):
        return stats.invgamma(df / 2, scale=df * scale**2 / 2)

    def log_marginal(self, w, df, scale):
        return stats.t(df, scale=scale).logpdf(w)


def test_concentration_minus_one_and_rate_zero_are_variational_bayesian_dropout(float64):
    total, n = 10 ** torch.linspace(-8, 3, 12), torch.arange(1.0, 13)
    flat = SimpleNamespace(concentration=torch.tensor(-1.0), rate=torch.tensor(0.0))  # the density gamma^0
    assert_close(inverse_gamma_variance(flat, total, n), total / n)
