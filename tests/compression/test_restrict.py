import copy

import pyro
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from tests.compiling.test_compiled_elbo import batch, check, loss_of, mlp
from tests.compression.pruned import trained
from tests.digits import assert_equal, classifier, pair


def restricted(device, threshold=1.0):
    model, guide, train, validation = copy.deepcopy(trained(device))
    kept = vbd.masks(guide, threshold)
    vbd.restrict(guide, kept)
    return model, guide, train, validation, kept


def test_removed_weights_are_zero_without_noise(device):
    _, guide, _, _, kept = restricted(device)
    for values in (guide.median(), guide.sample()):
        for site, mask in kept.items():
            assert bool((values[site][mask == 0].abs() < 1e-10).all())
    assert all(torch.equal(new, kept[site]) for site, new in vbd.masks(guide, 1e6, 1e6).items())
    assert guide.quantiles([0.1, 0.9])["7.weight"].shape == (2, 10, 30)


def test_what_is_kept_is_as_it_was(device):
    _, before, _, _ = trained(device)
    _, guide, _, _, kept = restricted(device)
    for site, mask in kept.items():
        assert torch.equal(guide.median()[site], before.median()[site] * mask)
        assert torch.equal(guide.log_alpha()[site][mask == 1], before.log_alpha()[site][mask == 1])


def test_the_kl_of_removed_weights_is_zero(device):
    model, guide, train, _, kept = restricted(device)
    terms = vbd.VBD_ELBO().terms(model, guide, *next(iter(train)))
    for site, mask in kept.items():
        expected = 0.5 * torch.log1p((-guide.log_alpha()[site]).exp())[mask == 1].sum()
        torch.testing.assert_close(terms.kl_by_site[site], expected, rtol=1e-4, atol=1e-3)


def test_training_goes_on_inside_the_mask_alone(device):
    model, guide, train, _, kept = restricted(device)
    outside = {site: guide.posteriors["q/" + site.replace(".", "/")].loc[mask == 0].clone() for site, mask in kept.items()}
    before = guide.median()
    run = vbd.fit(model, guide, train, epochs=3, lr=1e-3, progress=False)
    assert run.history[-1]["loss"] < run.history[0]["loss"]
    for site, mask in kept.items():
        posterior = guide.posteriors["q/" + site.replace(".", "/")]
        assert torch.equal(posterior.loc[mask == 0], outside[site])
        assert not torch.equal(guide.median()[site][mask == 1], before[site][mask == 1])
        assert guide.median()[site][mask == 0].eq(0).all()


FORMS = ["weight", "unit", "layer", 0.5]


def every_other(guide):
    """Masks that remove half of each weight."""
    return {site: (torch.arange(v.numel()).view_as(v) % 2).to(v) for site, v in guide.log_alpha().items()}


@pytest.mark.parametrize("alpha", FORMS)
def test_other_forms_of_the_posterior(alpha):
    model, _ = pair(20)
    guide = vbd.VBDGuide(model, alpha=alpha)
    kept = {site: (torch.rand_like(value) > 0.5).to(value) for site, value in guide.log_alpha().items()}
    vbd.restrict(guide, kept)
    pyro.set_rng_seed(0)
    assert all(bool((guide.sample()[site][mask == 0].abs() < 1e-10).all()) for site, mask in kept.items())
    loss = vbd.VBD_ELBO().differentiable_loss(model, guide, torch.randn(20, 64), torch.randint(10, (20,)))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad.isfinite().all() for p in guide.parameters())


@pytest.mark.parametrize("alpha", FORMS)
def test_removed_weights_count_as_removed_at_every_alpha(alpha):
    model, _ = pair(20)
    guide = vbd.VBDGuide(model, alpha=alpha)
    kept = every_other(guide)
    vbd.restrict(guide, kept)
    assert vbd.sparsity(guide, 1e6) == 0.5
    assert all(torch.equal(mask, kept[site]) for site, mask in vbd.masks(guide, 1e6).items())
    data = [(torch.randn(20, 64), torch.randint(10, (20,)))]
    assert vbd.sweep(model, guide, data, [1e6]).points[0].ratio == 2.0


@pytest.mark.parametrize("prior", [vbd.priors.GaussianUniform(), vbd.priors.LogUniform()])
@pytest.mark.parametrize("alpha", ["unit", "layer", 0.5])
def test_removed_weights_pay_no_kl_whatever_alpha_they_share(alpha, prior):
    """The KL and its gradient in alpha are those of a weight with the kept ones alone."""
    terms = {}
    for width in (6, 3):
        net = nn.Linear(width, 2)
        with torch.no_grad():
            net.weight.copy_(torch.linspace(0.1, 2.0, 6).view(2, 3).repeat_interleave(width // 3, 1))
        model = vbd.Classifier(net, prior, 20)
        guide = vbd.VBDGuide(model, alpha=alpha)
        if width == 6:
            vbd.restrict(guide, every_other(guide))
        kl = vbd.VBD_ELBO().terms(model, guide, torch.randn(20, width), torch.arange(20) % 2).kl_by_site["weight"]
        shared = [p for name, p in guide.named_parameters() if name.endswith("log_alpha")]
        slopes = torch.autograd.grad(kl, shared) if shared else ()
        terms[width] = kl.detach(), slopes
    torch.testing.assert_close(terms[6], terms[3])


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("alpha", FORMS)
def test_compiled_as_eager(alpha):
    loss = loss_of(mlp(), alpha=alpha)
    vbd.restrict(loss.guide, every_other(loss.guide))
    check(loss, *batch())


def test_may_be_done_again(device):
    _, guide, _, _, kept = restricted(device)
    fewer = {site: mask.clone() for site, mask in kept.items()}
    fewer["7.weight"][0] = 0.0
    vbd.restrict(guide, fewer)
    vbd.restrict(guide, {site: torch.ones_like(mask) for site, mask in kept.items()})
    assert torch.equal(vbd.masks(guide, 1e6, 1e6)["7.weight"], fewer["7.weight"])


def test_masks_that_do_not_fit_are_refused_before_anything_changes():
    _, guide = pair(20)
    good = {"0.weight": torch.ones(50, 64)}
    for bad, message in (
        ({"9.weight": torch.ones(3)}, "a mask for '9.weight', but the weights are"),
        ({"2.weight": torch.ones(3)}, r"'2.weight' has shape \(3,\), the weight \(10, 50\)"),
        ({"2.weight": torch.ones(50, 10)}, r"'2.weight' has shape \(50, 10\), the weight \(10, 50\)"),
        ({"2.weight": torch.zeros(10, 50)}, "'2.weight' keeps nothing"),
        ({"2.weight": torch.full((10, 50), 0.5)}, "the mask of '2.weight' holds other numbers than 0 and 1"),
        ({"2.weight": torch.full((10, 50), torch.nan)}, "the mask of '2.weight' holds other numbers than 0 and 1"),
    ):
        with pytest.raises(ValueError, match=message):
            vbd.restrict(guide, {**good, **bad})
    assert "mask" not in str(guide.state_dict().keys())


@pytest.mark.parametrize("alpha", FORMS)
def test_a_saved_one_is_loaded_into_a_new_guide_with_its_masks(alpha):
    saved = vbd.VBDGuide(classifier(20), alpha=alpha)
    kept = every_other(saved)
    del kept["2.weight"]
    vbd.restrict(saved, kept)
    new = vbd.VBDGuide(classifier(20), alpha=alpha)
    parameters = dict(new.named_parameters())
    nn.ModuleDict({"guide": new}).load_state_dict(nn.ModuleDict({"guide": saved}).state_dict())
    assert_equal(new.state_dict(), saved.state_dict())
    assert torch.equal(vbd.masks(new, 1e6)["0.weight"], kept["0.weight"])
    assert all(parameter is parameters[name] for name, parameter in new.named_parameters())  # those of an optimizer
    fewer = {site: mask * mask.flip(0) * (torch.arange(64) > 5) for site, mask in kept.items()}
    vbd.restrict(saved, fewer)
    new.load_state_dict(saved.state_dict())
    assert torch.equal(vbd.masks(new, 1e6)["0.weight"], fewer["0.weight"])


@pytest.mark.parametrize("strict", [True, False])
def test_a_whole_state_is_refused_by_a_restricted_guide(strict):
    _, whole = pair(20)
    _, guide = pair(20)
    kept = every_other(guide)
    vbd.restrict(guide, kept)
    before = {name: value.clone() for name, value in guide.state_dict().items()}
    with pytest.raises(RuntimeError, match=r"no masks of \[.*0.weight.*2.weight'\], which are restricted here: load it"):
        guide.load_state_dict(whole.state_dict(), strict=strict)
    assert_equal(guide.state_dict(), before)
    guide.load_state_dict({}, strict=False)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*0/weight.mask"):
        whole.load_state_dict({**whole.state_dict(), "posteriors.q/0/weight.mask": torch.ones(3)})
