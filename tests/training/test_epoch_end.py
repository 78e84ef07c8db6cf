import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.training.epoch_end import end_epoch, has_ended
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.run import Fit
from tests.training.validation_losses import set_validation_losses


def run_of_one_layer():
    model = vbd.Classifier(nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)), vbd.priors.GaussianUniform(), 10)
    guide = vbd.VBDGuide(model)
    parameters = {f"guide.{name}": value for name, value in guide.named_parameters()}
    return Fit(model, guide, vbd.VBD_ELBO(), parameters, torch.optim.Adam(guide.parameters()))


def held_out():
    return [(torch.randn(6, 3), torch.zeros(6, dtype=torch.long)), (torch.randn(3, 3), torch.ones(3, dtype=torch.long))]


def end(run, data=None, patience=None, callbacks=()):
    end_epoch(run, {"epoch": run.epoch}, data, patience, callbacks, Processes())


def test_the_record_gets_the_validation_loss_and_what_callbacks_give():
    run = run_of_one_layer()
    data, seen = held_out(), []
    callbacks = [lambda run: seen.append(run.epoch), lambda run: 3.0, lambda run: {"more": 7}]
    end(run, data=data, callbacks=callbacks)
    expected = vbd.negative_log_likelihood(run.model, run.guide, data)
    assert run.history == [{"epoch": 0, "validation": pytest.approx(expected), "more": 7}]
    assert (run.epoch, seen, run.best_epoch, run.stop) == (1, [1], 0, False)
    with pytest.raises(ValueError, match=r"\['epoch'\]"):
        end(run, callbacks=[lambda run: {"epoch": 7}])
    with pytest.raises(ValueError, match="validation data gave no batch"):
        end(run, data=[])


def test_the_best_values_are_kept_and_patience_ends():
    run = run_of_one_layer()
    data, losses = held_out(), []
    end(run, data, patience=2)
    start = run.history[0]["validation"]
    for step in range(2):
        before = {name: value.clone() for name, value in run.best.items()}
        with torch.no_grad():
            run.parameters["guide.posteriors.q/0/weight.loc"].mul_(-10)
        run.model.network.net[1].running_mean.add_(5)
        end(run, data, patience=2)
        losses.append(run.history[-1]["validation"])
        assert losses[-1] > start
        torch.testing.assert_close(run.best, before, rtol=0, atol=0)
        assert run.stop == (step == 1)
    assert run.best_epoch == 0
    assert any(name.startswith("buffer") for name in run.best)
    name = "guide.posteriors.q/0/weight.loc"
    assert not torch.equal(run.best[name], run.parameters[name])


def test_the_last_epoch_reaches_every_callback():
    run = run_of_one_layer()
    seen = []
    end(run, callbacks=[lambda run: setattr(run, "stop", True), lambda run: seen.append(run.stop)])
    assert seen == [True]


def of_losses(monkeypatch, losses, patience=None, history=()):
    """A run of these validation losses, and for each epoch whether its parameters are the best so far."""
    run = run_of_one_layer()
    run.history, run.epoch = list(history), len(history)
    kept = []
    set_validation_losses(monkeypatch, losses)
    for _ in losses:
        before = run.best
        end(run, [()], patience)
        kept.append(run.best is not before)
    return run, kept


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_loss_that_is_not_finite_is_never_the_best_for_long(monkeypatch, bad):
    run, kept = of_losses(monkeypatch, [bad, bad, 5.0, bad, 4.0], patience=2)
    assert (run.best_epoch, run.stop, kept) == (4, False, [True, False, True, False, True])
    assert of_losses(monkeypatch, [bad] * 3, patience=2)[0].stop


def test_epochs_without_validation_are_no_candidates(monkeypatch):
    history = [{"epoch": epoch} for epoch in range(4)]
    run, kept = of_losses(monkeypatch, [3.0, 4.0, 0.0, 2.5], patience=2, history=history)
    assert (run.best_epoch, run.stop, kept) == (6, False, [True, False, True, False])
    assert of_losses(monkeypatch, [3.0, 4.0, 5.0], patience=2, history=history)[0].stop


@pytest.mark.parametrize(("patience", "asked"), [(1, False), (2, True), (None, True)])
def test_callbacks_are_asked_again_unless_patience_stops_the_run_anyway(patience, asked):
    run = run_of_one_layer()
    run.history, run.stop, seen = [{"validation": 1.0}, {"validation": 2.0}], True, []
    assert has_ended(run, patience, [seen.append]) is not asked
    assert seen == [run] * asked
