"""The registry of optima: registration, inheritance, refusal."""

import pyro.distributions as dist
import pytest

from pyro_vbd.priors import find_optimum, register_optimum


class Ours(dist.Weibull):
    pass


class Theirs(Ours):
    pass


pytestmark = pytest.mark.usefixtures("registries")


def test_the_decorator_registers_and_returns_the_function():
    @register_optimum(Ours, "precision")
    def argmin(hyperprior, sum_of_squares, count):
        return sum_of_squares / count

    assert find_optimum(Ours, "precision") is argmin
    assert argmin(None, 6.0, 3.0) == 2.0


def test_each_role_has_an_entry_of_its_own():
    register_optimum(Ours, "scale")(len)
    assert find_optimum(Ours, "scale") is len
    assert find_optimum(Ours, "variance") is None


def test_subclasses_inherit_and_the_nearest_counts():
    register_optimum(Ours, "scale")(len)
    assert find_optimum(Theirs, "scale") is len
    assert find_optimum(dist.Weibull, "scale") is None
    register_optimum(Theirs, "scale")(abs)
    assert find_optimum(Theirs, "scale") is abs
    assert find_optimum(Ours, "scale") is len


def test_a_second_registration_replaces_the_first():
    register_optimum(Ours, "scale")(len)
    register_optimum(Ours, "scale")(abs)
    assert find_optimum(Ours, "scale") is abs


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match=r"on='std'.*variance, scale, precision"):
        register_optimum(Ours, "std")
