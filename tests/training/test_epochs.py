from functools import partial

import pytest
import torch
from torch import nn
from tqdm import tqdm

import pyro_vbd as vbd
from pyro_vbd.training.epochs import run_epochs
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.run import Fit
from tests.training.validation_losses import set_validation_losses


class Bar(tqdm):
    """Keeps what it shows."""

    def __init__(self, epochs):
        super().__init__(total=epochs, disable=True)
        self.words, self.steps = [], 0

    def set_postfix_str(self, words):
        self.words.append(words)

    def update(self):
        self.steps += 1


def run(kl_weight=1.0, lr=0.1, **state):
    model = vbd.Classifier(nn.Linear(3, 2), vbd.priors.GaussianUniform(), num_data=10)
    guide = vbd.VBDGuide(model)
    parameters = dict(guide.named_parameters())
    optimizer = torch.optim.Adam(guide.parameters(), lr=lr)
    return Fit(model.eval(), guide.eval(), vbd.VBD_ELBO(kl_weight), parameters, optimizer, **state)


DATA = [(torch.randn(10, 3), torch.zeros(10, dtype=torch.long))]


def go(runs, take_pass, *, epochs=2, state=dict, **settings):
    bar = Bar(epochs)
    settings = {
        "kl_schedule": vbd.schedules.constant, "lr_schedule": vbd.schedules.constant, "validation": None, "patience": None,
        "callbacks": (), "checkpoint": None, "device": None, **settings,
    }  # fmt: skip
    run_epochs(runs, DATA, take_pass, state, bar, Processes(), epochs=epochs, **settings)
    return bar


def losses(runs, seen=None):
    """A pass in which run k has the loss k + its epoch."""

    def take_pass(batches):
        list(batches)
        if seen is not None:
            seen.append([(r.elbo.kl_weight, r.optimizer.param_groups[0]["lr"], r.model.training) for r in runs])
        return {k: {"loss": float(k + r.epoch)} for k, r in enumerate(runs) if not r.stop}

    return take_pass


def test_schedules_multiply_what_each_run_began_with_which_returns():
    runs, seen = [run(1.0, 0.1), run(3.0, 0.2)], []
    course = {"kl_schedule": lambda epoch, epochs: epoch / epochs, "lr_schedule": lambda epoch, epochs: 1.0 / (1 + epoch)}
    bar = go(runs, losses(runs, seen), **course)
    assert seen == [[(0.0, 0.1, True), (0.0, 0.2, True)], [(0.5, 0.05, True), (1.5, 0.1, True)]]
    assert [(r.elbo.kl_weight, r.optimizer.param_groups[0]["lr"]) for r in runs] == [(1.0, 0.1), (3.0, 0.2)]
    assert not any(r.model.training or r.guide.training for r in runs)
    assert ([r.epoch for r in runs], bar.steps) == ([2, 2], 2)

    def fails(batches):
        raise FloatingPointError

    with pytest.raises(FloatingPointError):
        go(runs, fails, epochs=3, **course)
    assert [(r.elbo.kl_weight, r.optimizer.param_groups[0]["lr"]) for r in runs] == [(1.0, 0.1), (3.0, 0.2)]


def test_the_bar_shows_losses_and_of_several_runs_their_range(monkeypatch):
    runs = [run(), run()]
    assert go(runs, losses(runs)).words == ["loss=0 to 1", "loss=1 to 2"]
    set_validation_losses(monkeypatch, [0.5, 0.25])
    alone = [run()]
    assert go(alone, losses(alone), validation=DATA).words == ["loss=0, validation=0.5", "loss=1, validation=0.25"]


def test_each_run_ends_by_its_own_and_the_others_go_on():
    runs = [run(), run()]

    def stops_the_first(of):
        of.stop = of is runs[0]

    go(runs, losses(runs), epochs=3, callbacks=[stops_the_first])
    assert [r.epoch for r in runs] == [1, 3]


def test_what_state_gives_is_written_after_each_epoch(tmp_path):
    runs, path = [run()], tmp_path / "run.ckpt"
    seen = []

    def look(of):
        seen.append(vbd.load_checkpoint(path)["epoch"] if path.exists() else None)

    go(runs, losses(runs), epochs=3, callbacks=[look], state=lambda: {"epoch": runs[0].epoch}, checkpoint=path)
    assert seen == [None, 1, 2]
    assert vbd.load_checkpoint(path)["epoch"] == 3


def test_runs_that_have_ended_or_lag_behind_rest():
    runs = [run(epoch=1), run(epoch=2), run(epoch=2, failure="the loss is nan", stop=True)]
    with pytest.warns(UserWarning, match="member 0 had stopped at epoch 1 and stays there, for the others are at 2"):
        go(runs, losses(runs), epochs=4)
    assert [r.epoch for r in runs] == [1, 4, 2]


def test_with_patience_a_run_ends_in_its_best_parameters(monkeypatch):
    for patience, kept in ((1, 1.0), (None, 3.0)):
        set_validation_losses(monkeypatch, [1.0, 2.0, 3.0])
        alone = run()

        def take_pass(batches, alone):
            alone.guide.posteriors["q/weight"].loc.data.fill_(alone.epoch + 1.0)
            return {0: {"loss": 0.0}}

        go([alone], partial(take_pass, alone=alone), epochs=3, validation=DATA, patience=patience)
        assert bool((alone.guide.posteriors["q/weight"].loc == kept).all())
        assert alone.epoch == (2 if patience else 3)
