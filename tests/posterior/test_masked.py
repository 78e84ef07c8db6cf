import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence

from pyro_vbd.posterior.masked import MaskedPosterior
from pyro_vbd.posterior.site_posteriors import GaussianPosterior

MASK = [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]


def masked(log_alpha=None):
    """Half of six weights; all of one alpha where it is given."""
    loc = torch.linspace(-1.0, 2.0, 6).view(2, 3)
    return MaskedPosterior(GaussianPosterior("q", loc, -3.0, log_alpha), torch.tensor(MASK))


def shared(device):
    return torch.full((2, 1), -1.0, device=device)


def test_kept_weights_share_alpha_and_removed_ones_have_none(device):
    q, kept = masked(shared(device)).distribution(), torch.tensor(MASK, device=device) != 0
    torch.testing.assert_close(q.variance[kept], (q.loc.square() * torch.tensor(-1.0).exp())[kept])
    torch.testing.assert_close(q.inverse_alpha[kept], torch.full((3,), 1.0, device=device).exp())
    for name in ("loc", "variance", "inverse_alpha"):
        assert torch.equal(getattr(q, name)[~kept], getattr(masked().distribution(), name)[~kept])


def test_a_removed_weight_is_a_zero_of_its_group_at_every_alpha(device):
    """A scale that is learned gets the pull that it gets under an alpha for each weight."""
    found = []
    for log_alpha in (None, shared(device)):
        scale = torch.tensor(0.5, device=device, requires_grad=True)
        kl = kl_divergence(masked(log_alpha).distribution(), dist.Normal(torch.zeros(2, 3, device=device), scale))
        removed = kl[torch.tensor(MASK, device=device) == 0]
        found.append((removed.detach(), torch.autograd.grad(removed.sum(), scale)))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("centre", [0.0, 0.3])
def test_the_kl_of_a_kept_weight_is_as_it_was(device, centre):
    posterior = masked(shared(device))
    kept, prior = posterior.mask != 0, dist.Normal(torch.full((2, 3), centre, device=device), 1.0)
    whole = GaussianPosterior("q", posterior.loc, -3.0, shared(device)).distribution()
    torch.testing.assert_close(kl_divergence(posterior.distribution(), prior)[kept], kl_divergence(whole, prior)[kept])


def test_an_expanded_one_knows_what_is_removed(device):
    q = masked(shared(device)).distribution()
    wide = q.expand((4, *q.batch_shape))
    for name in ("loc", "variance", "inverse_alpha"):
        assert torch.equal(getattr(wide, name), getattr(q, name).expand(wide.batch_shape))
    prior = dist.Normal(torch.zeros((), device=device), 1.0)
    torch.testing.assert_close(kl_divergence(wide, prior), kl_divergence(q, prior).expand(wide.batch_shape))


def test_an_expanded_one_computes_nothing_again(device):
    q = masked(shared(device)).distribution()
    wide = q.expand((4, *q.batch_shape))
    for name in ("variance", "scale"):
        assert getattr(wide, name).untyped_storage().data_ptr() == getattr(q, name).untyped_storage().data_ptr()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool])
def test_a_mask_is_a_copy_in_the_dtype_of_the_means(dtype, device):
    mask = torch.tensor(MASK, device=device).to(dtype)
    posterior = MaskedPosterior(GaussianPosterior("q", torch.ones(2, 3, device=device), -3.0), mask)
    mask.zero_()
    assert torch.equal(posterior.mask, torch.tensor(MASK, device=device))
    assert posterior.mask.dtype == posterior.loc.dtype


@pytest.mark.parametrize("learned", [True, False])
def test_a_shared_alpha_is_kept_and_learned_as_before(learned, device):
    whole = GaussianPosterior("q", torch.ones(2, 3, device=device), -3.0, shared(device), learned)
    posterior = MaskedPosterior(whole, torch.tensor(MASK, device=device))
    assert dict(posterior.named_parameters()).keys() == dict(whole.named_parameters()).keys()
    assert set(posterior.state_dict()) == {"mask", *whole.state_dict()}


def test_quantiles_of_what_is_removed_are_zero(device):
    values = masked(shared(device)).quantile(torch.tensor([0.1, 0.9], device=device))
    assert values.shape == (2, 2, 3)
    assert bool((values[:, torch.tensor(MASK, device=device) == 0] == 0).all())
