"""The whole way: a posterior, a smaller network, a report; and what is refused."""

import copy

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from tests.compression.pruned import error, trained
from tests.digits import pair


def test_computes_what_the_posterior_said(device):
    model, guide, _, validation = trained(device)
    small, report = vbd.compress(model, guide, 1.0, batch_sizes=())
    masked = vbd.point_network(model, guide, 1.0)
    x = next(iter(validation))[0]
    torch.testing.assert_close(small(x), masked(x), rtol=1e-4, atol=1e-4)
    assert error(small, validation) < 0.1
    kept = [mask for mask in vbd.masks(guide, 1.0).values() if mask.dim() > 1]  # not gates
    left = sum(float(mask.sum()) for mask in kept)
    assert report.mask_ratio == pytest.approx(sum(mask.numel() for mask in kept) / left)
    assert report.ratio > 4
    assert report.difference < 1e-5
    assert report.bytes_left < 0.8 * report.bytes
    assert sum(p.numel() for p in small.parameters()) < 0.8 * sum(p.numel() for p in masked.parameters())


def test_leaves_model_guide_and_random_state(device):
    model, guide, _, _ = trained(device)
    state = copy.deepcopy((model.state_dict(), guide.state_dict(), torch.get_rng_state()))
    vbd.compress(model, guide, batch_sizes=())
    for before, after in zip(state[:2], (model.state_dict(), guide.state_dict()), strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(state[2], torch.get_rng_state())


def test_masks_of_ones_own_and_whole_units(device):
    model, guide, _, _ = trained(device)
    kept = {"5.weight": torch.ones(30, 72)}
    kept["5.weight"][7:] = 0.0
    _, report = vbd.compress(model, guide, kept=kept, batch_sizes=())
    assert {row.name: row.units_left for row in report.layers}["5"] == 7
    _, by_unit = vbd.compress(model, guide, 0.0, -1.0, per="unit", batch_sizes=(), allow_dead=True)
    rows = vbd.masks(guide, 0.0, -1.0, per="unit")["5.weight"]
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert by_unit.difference < 1e-4


def test_what_the_papers_unit_priors_remove():
    """A row whose weights all have a large log alpha is a unit that goes."""
    model, guide = pair(20)
    q = guide.posteriors["q/0/weight"]
    with torch.no_grad():
        q.log_var.fill_(-10.0)
        q.log_var[:40] = 5.0
    _, report = vbd.compress(model, guide, inputs=torch.randn(2, 64), batch_sizes=())
    assert (report.layers[0].units, report.layers[0].units_left) == (50, 10)


def test_lifted_networks_and_modes():
    lifted = vbd.lift(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), vbd.priors.GaussianUniform(), name="body")
    guide = vbd.VBDGuide(lifted)
    small, _ = vbd.compress(lifted.eval(), guide, inputs=torch.randn(3, 4), batch_sizes=())
    assert not small.training


def test_what_cannot_be_done_is_named(device):
    model, guide, _, _ = trained(device)
    with pytest.raises(ValueError, match=r"layer '1' would die whole|layer '7' would die whole"):
        vbd.compress(model, guide, -1e9)
    small, _ = vbd.compress(model, guide, -1e9, -1e9, allow_dead=True, batch_sizes=())
    x = torch.randn(3, 8, 8)
    torch.testing.assert_close(small(x), small(x[:1]).expand(3, -1))
    with pytest.raises(ValueError, match=r"a mask for 'other.weight', but the weights are .* it is of another network"):
        vbd.compress(model, guide, kept={"other.weight": torch.ones(3)})
    with pytest.raises(ValueError, match=r"'7.weight' has shape \(3,\), the weight \(10, 30\)"):
        vbd.compress(model, guide, kept={"7.weight": torch.ones(3)})
    with pytest.raises(TypeError, match="holds no network"):
        vbd.compress(lambda x: x, guide)
    fresh, its_guide = pair(20)
    with pytest.raises(ValueError, match=r"has not run yet.*inputs="):
        vbd.compress(fresh, its_guide)
