import pytest
import torch
from torch.nn.utils import prune

import pyro_vbd as vbd
from tests.digits import classifier, network


def pair_with(log_alpha):
    """A guide whose first weights have the given log alpha (mean 1)."""
    model = classifier(20)
    guide = vbd.VBDGuide(model)
    q = guide.posteriors["q/0/weight"]
    with torch.no_grad():
        q.loc.fill_(1.0)
        q.log_var.fill_(-5.0)
        q.log_var[0, : len(log_alpha)] = torch.tensor(log_alpha)
    return model, guide


def test_masks_keep_up_to_the_threshold():
    _, guide = pair_with([2.9, 3.1, 8.0])
    mask = vbd.masks(guide)["0.weight"]
    assert mask[0, :4].tolist() == [1, 0, 0, 1]
    assert mask.shape == (50, 64)
    assert vbd.masks(guide, threshold=5.0)["0.weight"][0, :4].tolist() == [1, 1, 0, 1]


def test_a_mean_of_zero_is_removed():
    _, guide = pair_with([0.0])
    with torch.no_grad():
        guide.posteriors["q/0/weight"].loc[0, 0] = 0.0
    assert vbd.masks(guide)["0.weight"][0, 0] == 0


def test_sparsity_counts_weights_not_layers():
    _, guide = pair_with([4.0] * 64)
    expected = 64 / (50 * 64 + 10 * 50)
    beyond = sum(int((v > 3).sum()) for v in guide.log_alpha().values()) / 3700
    assert vbd.sparsity(guide) == pytest.approx(beyond)
    assert vbd.sparsity(guide) >= expected


def test_masks_fit_torch_prune():
    model, guide = pair_with([4.0, 4.0])
    net = vbd.point_network(model, guide)
    prune.custom_from_mask(net[0], "weight", vbd.masks(guide)["0.weight"])
    assert torch.equal(net[0].weight, vbd.point_network(model, guide, 3.0)[0].weight)


def test_point_network_has_the_means_and_the_trained_rest():
    model, guide = pair_with([4.0])
    with torch.no_grad():
        model.network.net[0].bias.fill_(7.0)
    net = vbd.point_network(model, guide)
    assert torch.equal(net[0].weight, torch.ones(50, 64))
    assert (net[0].bias == 7).all()
    assert all(p.requires_grad for p in net.parameters())
    pruned = vbd.point_network(model, guide, 3.0)
    assert pruned[0].weight[0, 0] == 0
    assert pruned[0].weight[0, 1] == 1
    with torch.no_grad():
        net[0].weight.zero_()
    assert not torch.equal(model.network.net[0].weight, net[0].weight)


def test_point_network_of_a_lifted_network_with_a_name():
    lifted = vbd.lift(network(), vbd.priors.GaussianUniform(), name="body")
    guide = vbd.VBDGuide(lifted)
    assert set(guide.median()) >= {"body.0.weight"}
    assert torch.equal(vbd.point_network(lifted, guide)[0].weight, guide.median()["body.0.weight"])


def test_a_model_without_a_network():
    with pytest.raises(TypeError, match="holds no network"):
        vbd.point_network(lambda x: x, vbd.VBDGuide(classifier(20)))
