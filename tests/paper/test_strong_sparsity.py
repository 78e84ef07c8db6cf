"""Table 4-strong: a phase that removes weights, and one for those that are left."""

from dataclasses import replace

import pyro
import pytest
import torch

import pyro_vbd as vbd
from examples.paper import strong_sparsity, table4
from examples.paper.cell import Cell, Job
from tests.paper.kills import killed_after
from tests.paper.small_data import enlarged_digits

PRIOR = vbd.priors.GaussianUniform()


def job(folder, device, held_out, train=1200, **changes):
    recipe = dict(
        table4.STRONG["lenet-300-100"], refit=0.25, epochs=13, batch_size=50, lr=4e-3, kl=[[1, 0.0], [3, 1.0], [5, 1.4]]
    )
    return Job(
        Cell("4-strong", "vbd", "lenet-300-100", 0), {**recipe, **changes}, enlarged_digits(device, train, held_out), folder
    )


def test_two_ratios_and_what_the_second_phase_does(tmp_path, device):
    chosen = job(tmp_path, device, held_out=True, sparser_ratio=400.0)
    (found,) = strong_sparsity.train([chosen], PRIOR)
    assert 400.0 > found["compression"] > 1.5
    assert found["compression_sparser"] == pytest.approx(400.0, rel=2e-3)
    assert found["error"] < 20.0
    assert found["error"] < found["error_before"]
    assert found["picked"]["error"] == found["error"]
    assert {"validation_error", "validation_error_sparser"} <= set(found)


def test_the_kl_goes_past_the_bound(tmp_path, device):
    """More of it removes more."""
    ratios = []
    for name, last in (("bound", 1.0), ("more", 3.0)):
        torch.manual_seed(0)
        chosen = job(tmp_path / name, device, held_out=False, train=600, kl=[[1, 0.0], [3, 1.0], [5, last]])
        (found,) = strong_sparsity.train([chosen], PRIOR)
        assert "picked" not in found  # nothing is held out
        ratios.append(found["compression"])
    assert ratios[1] > 1.2 * ratios[0]


def test_seeds_side_by_side(tmp_path, device):
    first = job(tmp_path, device, held_out=False, train=600, epochs=4, refit=0.5, sparser_ratio=300.0)
    found = strong_sparsity.train([first, replace(first, cell=replace(first.cell, seed=1))], PRIOR)
    assert [round(one["compression_sparser"]) for one in found] == [300, 300]
    assert found[0]["compression"] != found[1]["compression"]


@pytest.mark.parametrize("saves", [1, 3])
def test_each_phase_goes_on_from_its_last_epoch(tmp_path, device, saves):
    def run(where):
        pyro.set_rng_seed(0)
        chosen = job(tmp_path / where, device, held_out=False, train=600, epochs=4, refit=0.5)
        (found,) = strong_sparsity.train([chosen], PRIOR)
        return {key: value for key, value in found.items() if key != "seconds"}

    whole = run("whole")
    with killed_after(saves) as written:
        run("stopped")
    assert written[-1] == ("fit.ckpt" if saves == 1 else "refit.ckpt")
    assert run("stopped") == whole


def test_the_threshold_of_a_ratio_keeps_the_least_noisy_weights_of_all_layers():
    model = vbd.Classifier(torch.nn.Sequential(torch.nn.Linear(10, 20), torch.nn.Linear(20, 5)), PRIOR, num_data=1)
    guide = vbd.VBDGuide(model)
    with torch.no_grad():
        for name, parameter in guide.named_parameters():
            if name.endswith("log_var"):
                parameter.normal_()
    kept = vbd.masks(guide, strong_sparsity.threshold_of(guide, 7.0))
    inside = torch.cat([value[kept[site] == 1] for site, value in guide.log_alpha().items()])
    outside = torch.cat([value[kept[site] == 0] for site, value in guide.log_alpha().items()])
    assert len(inside) == 300 // 7
    assert inside.max() < outside.min()
