"""How a recipe becomes a run of ``fit``: schedules, starts, and the share of each seed in the progress."""

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from examples.paper import bayesian
from examples.paper.cell import Cell, Job
from examples.paper.splits import Splits

RECIPE = {"lr": 2e-3, "batch_size": 30, "kl_ramp": [2, 4], "decay_from": 0.5, "kl_weight": 0.3}


def begin(job):
    model = vbd.Classifier(nn.Linear(3, 2), vbd.priors.GaussianUniform(), num_data=20)
    guide = vbd.VBDGuide(model)
    return bayesian.Subject(job, model, guide, lambda: vbd.point_network(model, guide))


def job(folder, seed=0, tick=lambda epochs: None, held_out=False):
    x, y = torch.randn(20, 3), torch.arange(20) % 2
    return Job(Cell("toy", "a", "1", seed), {}, Splits(x, y, x, y, *((x, y) if held_out else ())), folder, tick=tick)


def test_what_a_recipe_says_of_a_run():
    found = bayesian.rates(RECIPE)
    assert {key: found[key] for key in ("lr", "batch_size", "kl_weight", "estimator", "site_weights")} == {
        "lr": 2e-3, "batch_size": 30, "kl_weight": 0.3, "estimator": "local", "site_weights": None
    }  # fmt: skip
    assert [found["kl_schedule"](epoch, 10) for epoch in (0, 2, 3, 4)] == [0, 0, 0.5, 1]
    assert [found["lr_schedule"](epoch, 10) for epoch in (0, 5, 8)] == pytest.approx([1, 1, 0.4])
    more = bayesian.rates({**RECIPE, "kl": [[0, 0.5], [4, 2.5]], "estimator": "auto", "site_weights": {"*": 2.0}})
    assert [more["kl_schedule"](epoch, 10) for epoch in (0, 2, 9)] == [0.5, 1.5, 2.5]
    assert (more["estimator"], more["site_weights"]) == ("auto", {"*": 2.0})


def test_a_run_is_asked_for_as_the_recipe_says(monkeypatch, tmp_path):
    asked = []
    fit = vbd.fit
    monkeypatch.setattr(vbd, "fit", lambda *args, **more: asked.append((args, more)) or fit(*args, **more))
    ticks = []
    subjects = bayesian.begun([job(tmp_path, tick=ticks.append, held_out=True)], begin)
    (history,) = bayesian.train(subjects, epochs=5, measure=lambda net, x, y: {"error": 1.0}, **bayesian.rates(RECIPE))
    (((_, _, data), settings),) = asked
    assert data.batch_size == 30
    assert (settings["elbo"].kl_weight, settings["elbo"].estimator) == (0.3, "local")
    assert [record["kl_weight"] for record in history] == pytest.approx([0, 0, 0, 0.15, 0.3])
    assert [record["lr"] for record in history] == pytest.approx([2e-3, 2e-3, 2e-3, 1.6e-3, 8e-4])
    assert ticks == [1] * 5
    assert all(record["held_out"] == record["tested"] == {"error": 1.0} for record in history)


def test_each_job_begins_from_its_own_seed(tmp_path):
    def weights(*seeds):
        subjects = bayesian.begun([job(tmp_path, seed) for seed in seeds], begin)
        return [subject.model.network.net.weight.detach() for subject in subjects]

    first, second = weights(0, 1)
    assert torch.equal(weights(1)[0], second)
    assert not torch.equal(first, second)


def test_log_variances_start_at_one_value_and_means_stay():
    model = vbd.Classifier(nn.Linear(3, 2), vbd.priors.GaussianUniform(), num_data=20)
    guide = vbd.VBDGuide(model)
    before = guide.posteriors["q/weight"].loc.detach().clone()
    bayesian.set_log_var(guide, -3.0)
    assert (guide.posteriors["q/weight"].log_var == -3.0).all()
    assert torch.equal(guide.posteriors["q/weight"].loc, before)
