"""What a run that goes on has to have in common with its earlier part."""

import copy

import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.training.run import Fit
from pyro_vbd.training.settings import differing_setting, run_settings
from tests.digits import assert_equal, values

P = vbd.priors


class Mine(P.Prior):
    """A family without a repr of its own."""

    def __init__(self, size, values=(1.0,)):
        self.size, self.values = size, torch.tensor(values)

    def sample(self, name, init):
        return P.Gaussian(self.size).sample(name, init)


def settings(prior, **of_guide):
    model = vbd.Classifier(nn.Sequential(nn.Linear(3, 2)), prior, 10)
    guide = vbd.VBDGuide(model, **of_guide)
    return run_settings(Fit(model, guide, vbd.VBD_ELBO(), {}, torch.optim.Adam(guide.parameters())))


def test_settings_in_words():
    found = settings({"0.weight": P.Horseshoe(0.25, per="output")}, alpha=0.5)
    assert found == {
        "the model": "Classifier",
        "num_data": "10",
        "multilabel": "False",
        "ignore_index": "None",
        "the prior of '0.weight'": "Horseshoe(scale=0.25, per='output')",
        "the guide's alpha": "0.5",
        "the guide's scale_posterior": "'delta'",
        "the optimizer": "Adam",
        "the optimizer's amsgrad": "False",
    }


PRIORS = [
    lambda: P.GaussianUniform(),
    lambda: P.GaussianUniform(high=2.0),
    lambda: P.Gaussian(0.1234567),
    lambda: P.Gaussian(0.1234568),
    lambda: P.LogUniform(),
    lambda: P.LogUniform(P.kingma),
    lambda: P.Horseshoe(1),
    lambda: P.Horseshoe(2),
    lambda: P.Horseshoe(1, per="layer"),
    lambda: P.Horseshoe(P.Learned(1.0)),
    lambda: P.Horseshoe(dist.HalfCauchy(1.0)),
    lambda: P.Horseshoe(dist.HalfCauchy(2.0)),
    lambda: P.Horseshoe(1, global_scale=dist.HalfCauchy(2.0)),
    lambda: P.NormalGamma(0.5, floor=1e-8),
    lambda: P.NormalGamma(0.5, floor=1e-7),
    lambda: P.RegularizedHorseshoe(slab=2.0),
    lambda: P.RegularizedHorseshoe(slab=3.0),
    lambda: P.ScaleMixture(dist.Gamma(2.0, 1.0), on="variance"),
    lambda: P.ScaleMixture(dist.Gamma(2.0, 3.0), on="variance"),
    lambda: P.ScaleMixture(dist.Gamma(2.0, 1.0), on="precision"),
    lambda: Mine(1.0),
    lambda: Mine(2.0),
    lambda: Mine(1.0, (2.0,)),
]


def test_priors_are_told_apart_and_are_the_same_each_time():
    found = [settings(make())["the prior of '0.weight'"] for make in PRIORS]
    assert len(set(found)) == len(PRIORS)
    assert found == [settings(make())["the prior of '0.weight'"] for make in PRIORS]
    assert not [words for words in found if " at 0x" in words]


def test_a_prior_of_ones_own_is_its_public_attributes():
    class Counting(Mine):
        def __init__(self, parts):
            super().__init__(1.0)
            self.parts, self._calls = parts, 0

        def sample(self, name, init):
            self._calls += 1
            return super().sample(name, init)

    prior = Counting({"a": (1.0, 2.0), "b": [None, "x"]})
    before = settings(prior)
    assert differing_setting(before, settings(prior)) is None
    assert "parts={a: [1, 2], b: [None, 'x']}" in before["the prior of '0.weight'"]
    assert differing_setting(before, settings(Counting({"a": (9.0, 2.0), "b": [None, "x"]})))


def test_how_a_number_is_written_and_where_a_learned_one_starts_is_no_difference():
    for one, other in ((1, 1.0), (P.Learned(1.0), P.Learned(2.0))):
        assert settings(P.Horseshoe(one)) == settings(P.Horseshoe(other))


def test_networks_inside_a_module_of_ones_own_are_seen():
    class Two(nn.Module):
        def __init__(self, scales):
            super().__init__()
            self.parts = nn.ModuleList(
                vbd.lift(nn.Linear(3, 1), P.Gaussian(scale), name=f"net{k}") for k, scale in enumerate(scales)
            )

        def forward(self, x):
            return sum(part(x) for part in self.parts)

    found = []
    for model in [Two((1.0, scale)) for scale in (1.0, 2.0)]:
        guide = vbd.VBDGuide(model, torch.randn(2, 3))
        found.append(run_settings(Fit(model, guide, vbd.VBD_ELBO(), {}, torch.optim.SGD(guide.parameters(), 0.1))))
    expected = "the prior of 'net1.weight' is Gaussian(scale=1) there and Gaussian(scale=2) here"
    assert differing_setting(*found) == expected


def test_of_a_plain_function_there_is_what_its_guide_was_told():
    def model(x):
        return P.Horseshoe(1.0).sample("w", x)

    guide = vbd.VBDGuide(model, torch.randn(3), alpha="layer")
    found = run_settings(Fit(model, guide, vbd.VBD_ELBO(), {}, torch.optim.SGD(guide.parameters(), 0.1)))
    assert found == {
        "the model": "function",
        "the guide's alpha": "'layer'",
        "the guide's scale_posterior": "'delta'",
        "the optimizer": "SGD",
    }


@pytest.mark.parametrize(
    ("theirs", "ours", "difference"),
    [
        ({"a": "1", "b": "2"}, {"b": "3", "a": "1"}, "b is 2 there and 3 here"),
        ({"a": "1", "b": "2"}, {"c": "3", "a": "1"}, None),
    ],
)
def test_the_difference_is_named(theirs, ours, difference):
    assert differing_setting(theirs, ours) == difference


# --- runs that go on -------------------------------------------------------------------------------------------------


def regressor(prior=None, num_data=40, keep=None, noise=None, **of_guide):
    torch.manual_seed(0)
    of_noise = {} if noise is None else {"noise": noise, "learn_noise": False}
    model = vbd.Regressor(nn.Linear(3, 1), prior or P.GaussianUniform(), num_data=num_data, **of_noise)
    guide = vbd.VBDGuide(model, **of_guide)
    if keep is not None:
        vbd.restrict(guide, {"weight": torch.tensor([keep])})
    return model, guide


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({"alpha": 0.5}, {"alpha": 5.0}, "the guide's alpha is 0.5 there and 5 here"),
        ({}, {"alpha": "layer"}, "the guide's alpha is 'weight' there and 'layer' here"),
        ({}, {"scale_posterior": "exact"}, "the guide's scale_posterior is 'delta' there and 'exact' here"),
        ({}, {"prior": P.Gaussian()}, r"the prior of 'weight' is Gau.* there and Gaussian\(scale=1\) here"),
        ({}, {"num_data": 50}, "num_data is 40 there and 50 here"),
        ({"noise": 0.5}, {"noise": 0.25}, "the noise is 0.5 there and 0.25 here"),
        ({}, {"noise": 0.5}, "the noise is learned there and 0.5 here"),
        ({"keep": [1, 1, 0]}, {}, r"'guide.posteriors.q/weight.mask' has shape \(1, 3\) there and none here"),
        ({}, {"keep": [1, 1, 0]}, r"'guide.posteriors.q/weight.mask' has shape none there and \(1, 3\) here"),
        ({"keep": [1, 1, 0]}, {"keep": [1, 0, 1]}, "'guide.posteriors.q/weight.mask' has other values there than here"),
    ],
)
def test_a_checkpoint_of_other_settings_is_refused(tmp_path, device, before, after, message):
    settings = {"epochs": 2, "checkpoint": tmp_path / "run.ckpt", "progress": False}
    data = [(torch.randn(40, 3), torch.randn(40))]
    vbd.fit(*regressor(**before), data, **settings)
    model, guide = regressor(**after)
    start = copy.deepcopy(values(model, guide))
    with pytest.raises(ValueError, match=rf"run.ckpt holds .*{message}; pass another checkpoint path, or delete it"):
        vbd.fit(model, guide, data, **settings)
    assert_equal(values(model, guide), start)


@pytest.mark.parametrize("settings", [{"keep": [1, 1, 0]}, {"alpha": 0.5}])
def test_a_checkpoint_of_the_same_masks_and_alphas_is_not(tmp_path, device, settings):
    data = [(torch.randn(40, 3), torch.randn(40))]
    for epochs in (1, 2):
        pair = regressor(**settings)
        run = vbd.fit(*pair, data, epochs=epochs, checkpoint=tmp_path / "run.ckpt", progress=False)
        assert len(run.history) == epochs
    model, guide = regressor(**settings)
    next(value for value in guide.buffers()).sub_(1)
    with pytest.raises(ValueError, match=r"holds a run of another guide: .* has other values there than here"):
        vbd.fit(model, guide, data, epochs=3, checkpoint=tmp_path / "run.ckpt", progress=False)


def test_a_checkpoint_of_an_earlier_version_is_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    vbd.save_checkpoint(path, {"values": {}, "epoch": 3})
    with pytest.raises(ValueError, match=r"run.ckpt holds no run of this version of pyro_vbd; pass another"):
        vbd.fit(*regressor(), [(torch.randn(40, 3), torch.randn(40))], epochs=1, checkpoint=path, progress=False)


class Growing(torch.optim.SGD):
    """An optimizer that keeps a state in its groups, as Prodigy does."""

    def __init__(self, params, lr, momentum):
        super().__init__(params, lr, momentum)
        for group in self.param_groups:
            group["taken"] = 0

    def step(self, closure=None):
        for group in self.param_groups:
            group["taken"] += 1
        return super().step(closure)


def optimized(tmp_path, *makes):
    settings = {"checkpoint": tmp_path / "run.ckpt", "progress": False}
    data = [(torch.randn(40, 3), torch.randn(40))]
    for epochs, make in enumerate(makes, 1):
        run = vbd.fit(*regressor(), data, epochs=epochs, optimizer=make, **settings)
    (group,) = run.optimizer.param_groups
    return group, run.optimizer.state[group["params"][0]]


def test_settings_of_the_optimizer_may_change_and_its_state_stays(tmp_path):
    adams = [lambda p, b=b: torch.optim.Adam(p, lr=1e-2, betas=(b, 0.999), weight_decay=b) for b in (0.9, 0.5)]
    group, state = optimized(tmp_path, *adams)
    assert (group["betas"], group["weight_decay"], state["step"]) == ((0.5, 0.999), 0.5, 2)


def test_state_that_an_optimizer_keeps_in_its_groups_stays(tmp_path):
    group, _ = optimized(tmp_path, *[lambda p, m=m: Growing(p, 1e-3, momentum=m) for m in (0.9, 0.5)])
    assert (group["taken"], group["momentum"]) == (2, 0.5)


@pytest.mark.parametrize(
    ("first", "other", "message"),
    [
        (torch.optim.Adam, lambda p: torch.optim.SGD(p, 0.1), "the optimizer is Adam there and SGD here"),
        (torch.optim.Adam, lambda p: torch.optim.Adam(p, amsgrad=True), "the optimizer's amsgrad is False there and True"),
        (torch.optim.RMSprop, lambda p: torch.optim.RMSprop(p, centered=True), "the optimizer's centered is False there"),
    ],
)
def test_another_optimizer_is_refused(tmp_path, first, other, message):
    with pytest.raises(ValueError, match=f"other settings: {message}.*; pass another"):
        optimized(tmp_path, first, other)
