"""A half-t scale, between the horseshoe and the half-normal."""

import torch
from torch.testing import assert_close

from pyro_vbd.priors import HalfNormal, HalfStudentT, Horseshoe
from pyro_vbd.priors.half_normal import half_normal_scale
from pyro_vbd.priors.half_student_t import half_student_t_scale
from pyro_vbd.priors.horseshoe import half_cauchy_scale
from tests.distributions.test_positive import HalfT
from tests.priors.families import FamilyTests, at


class TestHalfStudentT(FamilyTests):
    make = HalfStudentT
    on = "scale"
    ranges = {"df": (0.5, 30.0), "scale": (1e-3, 1e2)}

    def density(self, df, scale):
        return HalfT(df, scale)


def test_its_ends_are_the_horseshoe_and_the_half_normal(float64):
    total, n = 10 ** torch.linspace(-8, 3, 12), torch.arange(1.0, 13)
    one, many = at(HalfStudentT(1.0, 0.3)), at(HalfStudentT(1e12, 0.3))
    assert_close(half_student_t_scale(one, total, n), half_cauchy_scale(at(Horseshoe(0.3)), total, n))
    assert_close(half_student_t_scale(many, total, n), half_normal_scale(at(HalfNormal(0.3)), total, n))
