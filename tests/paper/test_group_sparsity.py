"""Table 5-strong: neurons removed by priors whose scale a neuron's weights share."""

from dataclasses import replace

import pyro
import pytest
import torch

import pyro_vbd as vbd
from examples.paper import group_sparsity, table5
from examples.paper.cell import Cell, Job
from models import lenet_5_caffe, lenet_500_300
from pyro_vbd.posterior.site_posteriors import submodule_name
from tests.paper.kills import killed_after
from tests.paper.small_data import enlarged_digits


def job(folder, device, held_out=False, train=800, size="lenet-500-300", **changes):
    recipe = dict(
        table5.STRONG_METHODS["vbd-groups"].recipes[size],
        epochs=8, dense=0.25, tune=0.25, kl_ramp=[0, 0], kl_weight=0.03, batch_size=50, threshold=0.5, tune_lr=1e-3,
    )  # fmt: skip
    return Job(
        Cell("5-strong", "vbd-groups", size, 0), {**recipe, **changes}, enlarged_digits(device, train, held_out), folder
    )


def run(*jobs):
    pyro.set_rng_seed(0)
    return group_sparsity.train(jobs, vbd.priors.GaussianUniform)


def test_neurons_go_and_the_last_training_makes_up_for_it(tmp_path, device):
    (found,) = run(job(tmp_path, device, held_out=True))
    assert sum(found["neurons"]) < 0.9 * (784 + 500 + 300)
    assert found["weights"] == found["macs"] < 0.8 * 545_000
    assert found["error"] < min(found["error_before"], 15.0)
    assert found["picked"]["weights"] == found["weights"]
    assert 0 <= found["picked"]["epoch"] < 2  # of the last training


def test_a_factor_of_a_layers_kl_removes_its_inputs(tmp_path, device):
    counts = [
        run(job(tmp_path / name, device, site_weights=weights))[0]["neurons"]
        for name, weights in (("bound", {}), ("more", {"1.weight": 5.0}))
    ]
    assert counts[1][0] < 0.8 * counts[0][0]


def test_a_network_that_dies_is_measured(tmp_path, device):
    (found,) = run(job(tmp_path, device, epochs=4, threshold=-100.0))
    assert found["weights"] == 0
    assert found["error"] > 80.0


def test_convolutions(tmp_path, device):
    (found,) = run(job(tmp_path, device, size="lenet-5", epochs=4))
    assert 0 < found["neurons"][3] < 500
    assert 0 < found["weights"] < 430_500
    assert found["error"] < 15.0


def test_seeds_side_by_side(tmp_path, device):
    first = job(tmp_path / "0", device, epochs=4)
    second = replace(first, cell=replace(first.cell, seed=1), folder=tmp_path / "1")
    found = run(first, second)
    assert found[0]["neurons"] != found[1]["neurons"]
    names = [sorted(path.name for path in folder.glob("*.ckpt")) for folder in (first.folder, second.folder)]
    assert names == [["dense.ckpt", "fit_1.ckpt", "tune.ckpt"], ["dense.ckpt", "tune.ckpt"]]


def test_each_phase_goes_on_from_its_last_epoch(tmp_path, device):
    def metrics(where):
        return {key: value for key, value in run(job(tmp_path / where, device))[0].items() if key != "seconds"}

    whole = metrics("whole")
    for saves, phase in ((2, "fit"), (1, "tune")):
        with killed_after(saves, f"{phase}.ckpt"):
            metrics("stopped")
    assert metrics("stopped") == whole


@pytest.mark.parametrize("make", [lenet_5_caffe, lenet_500_300])
def test_groups_go_whole(make):
    net = make()
    priors = group_sparsity.group_priors(net, vbd.priors.GaussianUniform)
    assert [prior.per for prior in priors.values()] == (
        ["output", "input", "input", "input"] if make is lenet_5_caffe else ["input"] * 3
    )
    model = vbd.Classifier(net, priors, num_data=9)
    guide = vbd.VBDGuide(model)
    dims = {site: (0 if prior.per == "output" else 1) for site, prior in priors.items()}
    with torch.no_grad():
        for site, dim in dims.items():
            loc = guide.posteriors[submodule_name(site)].loc
            loc.select(dim, 2).fill_(1e-9)
            loc.select(dim, 3)[(0,) * (loc.dim() - 1)] = 1e-9  # one weight alone takes no group with it
    for site, kept in group_sparsity.group_masks(guide, priors, 3.0).items():
        assert not kept.select(dims[site], 2).any()
        assert kept.select(dims[site], 3).all()
        assert float(kept.mean()) == pytest.approx(1 - 1 / kept.size(dims[site]))
