"""What an objective is made of, as numbers to look at and as one vector."""

import torch

from pyro_vbd.elbo_terms import ELBOTerms


def test_kl_is_the_sum_over_sites_and_the_report_is_in_order():
    kls = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    terms = ELBOTerms(torch.tensor(-7.0), torch.tensor(-4.5), kls)
    assert terms.kl.item() == 5.0  # not weighted, whatever the bound holds of it
    assert terms.report().tolist() == [7.0, -4.5, 2.0, 3.0]


def test_without_latents_there_is_no_kl():
    terms = ELBOTerms(torch.tensor(-4.0, dtype=torch.float64), torch.tensor(-4.0, dtype=torch.float64), {})
    assert terms.kl.item() == 0.0
    assert terms.kl.dtype == torch.float64
