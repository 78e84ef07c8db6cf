"""Tables 5 and 1-strong: gates with a posterior on the units of a network that was trained densely."""

from dataclasses import replace

import pyro
import pytest

import pyro_vbd as vbd
from examples.paper import structured_vbd, table5
from examples.paper.cell import Cell, Job
from examples.paper.networks import network
from tests.paper.kills import killed_after
from tests.paper.small_data import enlarged_digits


def job(folder, device, held_out=False, size="lenet-500-300", **changes):
    recipe = dict(
        table5.STRONG_METHODS["vbd-gates"].recipes[size], epochs=8, batch_size=50, lr=4e-3, init_log_var=-0.3, kl=[[0, 1.0]]
    )
    data = enlarged_digits(device, 800, held_out)
    return Job(Cell("5-strong", "vbd-gates", size, 0), {**recipe, **changes}, data, folder)


def run(*jobs):
    pyro.set_rng_seed(0)
    return structured_vbd.train(jobs, vbd.priors.GaussianUniform())


def test_neurons_go(tmp_path, device):
    (found,) = run(job(tmp_path, device, held_out=True))
    assert 0 < found["neurons"][0] < 0.8 * 784
    assert found["weights"] == found["macs"] < 0.8 * 545_000
    assert found["error"] < 15.0
    assert found["picked"]["epoch"] >= 4  # of the last quarter, where the gates have done their work


def test_gates_alone_have_a_posterior(monkeypatch, tmp_path, device):
    subjects = []

    def begun(jobs, begin):
        subjects.extend(begin(one, network(one.cell.size)) for one in jobs)
        return subjects, 1, [[]]

    monkeypatch.setattr(structured_vbd, "begun_from_dense", begun)
    monkeypatch.setattr(structured_vbd.bayesian, "train", lambda *_, **__: [[]])
    run(job(tmp_path, device))
    assert [value.numel() for value in subjects[0].guide.log_alpha().values()] == [784, 500, 300]


def test_a_factor_of_a_layers_kl_closes_its_gates(tmp_path, device):
    counts = [
        run(job(tmp_path / name, device, epochs=4, site_weights=weights))[0]["neurons"]
        for name, weights in (("bound", {}), ("more", {"7.weight": 3.0}))
    ]
    assert 0 < counts[1][2] < 0.8 * counts[0][2]


def test_the_threshold_closes_gates(tmp_path, device):
    counts = [run(job(tmp_path / "one", device, epochs=4, threshold=value))[0]["neurons"] for value in (0.0, -0.35)]
    assert 0 < counts[1][0] < counts[0][0]


def test_seeds_side_by_side(tmp_path, device):
    first = job(tmp_path / "0", device, epochs=4)
    second = replace(first, cell=replace(first.cell, seed=1), folder=tmp_path / "1")
    found = run(first, second)
    assert found[0]["neurons"] != found[1]["neurons"]
    names = [sorted(path.name for path in folder.glob("*.ckpt")) for folder in (first.folder, second.folder)]
    assert names == [["dense.ckpt", "fit_1.ckpt"], ["dense.ckpt"]]


@pytest.mark.parametrize("saves", [1, 3])
def test_a_killed_run_goes_on_from_its_last_epoch(tmp_path, device, saves):
    def metrics(where):
        return {key: value for key, value in run(job(tmp_path / where, device, epochs=6))[0].items() if key != "seconds"}

    whole = metrics("whole")
    with killed_after(saves, "fit.ckpt"):
        metrics("stopped")
    assert metrics("stopped") == whole
