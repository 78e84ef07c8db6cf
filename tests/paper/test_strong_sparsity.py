"""Table 4-strong: a phase that removes weights, and one for those that are left."""

import pyro
import pytest
import torch

import pyro_vbd as vbd
from examples.paper import strong_sparsity, table4
from examples.paper.cell import Cell, Job
from examples.paper.splits import Splits
from tests.digits import digits


def job(folder, device, held_out, **changes):
    x, y, x_test, y_test = digits(device)
    images = [torch.nn.functional.interpolate(part.view(-1, 1, 8, 8), size=(28, 28)) for part in (x, x_test)]
    recipe = dict(
        table4.STRONG["lenet-300-100"], refit=0.25, epochs=13, batch_size=50, lr=4e-3, kl=[[1, 0.0], [3, 1.0], [5, 1.4]]
    )
    validation = (images[1][:100], y_test[:100]) if held_out else (None, None)
    data = Splits(images[0], y, images[1], y_test, *validation)
    return Job(Cell("4-strong", "vbd", "lenet-300-100", 0), {**recipe, **changes}, data, folder)


def test_two_thresholds_and_what_the_second_phase_does(tmp_path, device):
    found = strong_sparsity.train(job(tmp_path, device, held_out=True), vbd.priors.GaussianUniform())
    assert found["compression_sparser"] > found["compression"] > 1.5
    assert found["error"] < 20.0
    assert found["error"] < found["error_before"]
    assert found["picked"]["error"] == found["error"]
    assert {"validation_error", "validation_error_sparser"} <= set(found)


def test_the_kl_goes_past_the_bound(tmp_path, device):
    """More of it removes more."""
    ratios = []
    for name, last in (("bound", 1.0), ("more", 3.0)):
        torch.manual_seed(0)
        chosen = job(tmp_path / name, device, held_out=False, kl=[[1, 0.0], [3, 1.0], [5, last]])
        found = strong_sparsity.train(chosen, vbd.priors.GaussianUniform())
        assert "picked" not in found  # nothing is held out
        ratios.append(found["compression"])
    assert ratios[1] > 1.2 * ratios[0]


@pytest.mark.parametrize("saves", [1, 3])
def test_each_phase_goes_on_from_its_last_epoch(tmp_path, device, monkeypatch, saves):
    def run(where):
        pyro.set_rng_seed(0)
        chosen = job(tmp_path / where, device, held_out=False, epochs=4, refit=0.5)
        found = strong_sparsity.train(chosen, vbd.priors.GaussianUniform())
        return {key: value for key, value in found.items() if key != "seconds"}

    whole, made = run("whole"), []

    def stop_after(path, state, save=vbd.save_checkpoint):
        save(path, state)
        made.append(path.name)
        if len(made) == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pyro_vbd.training.save_checkpoint", stop_after)
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    assert made[-1] == ("fit.ckpt" if saves == 1 else "refit.ckpt")
    assert run("stopped") == whole
