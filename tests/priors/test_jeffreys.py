"""Jeffreys' prior between a floor and a ceiling."""

import numpy as np
import pytest
from scipy import special, stats

from pyro_vbd.priors import Jeffreys
from tests.priors.families import FamilyTests


class TestJeffreys(FamilyTests):
    make = Jeffreys
    on = "variance"
    ranges = {}
    numbers = ("floor", "ceiling")

    def draw(self, rng):
        return {"floor": 10 ** rng.uniform(-8, -2), "ceiling": 10 ** rng.uniform(-1, 4)}

    def density(self, floor=1e-6, ceiling=1e3):
        return stats.loguniform(floor, ceiling)

    def log_marginal(self, w, floor, ceiling):
        ends = [special.erfc(w / np.sqrt(2 * end)) for end in (ceiling, floor)]
        return np.log((ends[0] - ends[1]) / (w * np.log(ceiling / floor)))


@pytest.mark.parametrize(("floor", "ceiling"), [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)])
def test_without_bounds_it_is_refused_with_the_reason(floor, ceiling):
    with pytest.raises(ValueError, match=rf"Jeffreys\(floor={floor}, ceiling={ceiling}\).*improper.*no lower bound"):
        Jeffreys(floor, ceiling)
