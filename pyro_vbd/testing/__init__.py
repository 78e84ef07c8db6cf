"""The truth kit: what priors and guides must satisfy, checked on those of this library and on your own."""

from pyro_vbd.testing.guide_checks import GUIDE_CHECKS as GUIDE_CHECKS
from pyro_vbd.testing.guide_checks import check_guide as check_guide
from pyro_vbd.testing.prior_checks import PRIOR_CHECKS as PRIOR_CHECKS
from pyro_vbd.testing.prior_checks import check_prior as check_prior

__all__ = [
    "GUIDE_CHECKS",
    "PRIOR_CHECKS",
    "check_guide",
    "check_prior",
]
