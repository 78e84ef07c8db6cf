"""The penalised complexity prior: an exponential scale."""

import math

from scipy import stats

from pyro_vbd.priors import PCPrior
from tests.priors.families import FamilyTests


class TestPCPrior(FamilyTests):
    make = PCPrior
    on = "scale"
    ranges = {"rate": (1e-2, 1e3)}

    def density(self, rate):
        return stats.expon(scale=1 / rate)


def test_the_rate_that_puts_a_share_beyond_a_scale():
    """P(lambda > U) = epsilon at the rate that the docstring names."""
    upper, share = 0.3, 0.05
    assert math.isclose(TestPCPrior().density(-math.log(share) / upper).sf(upper), share)
