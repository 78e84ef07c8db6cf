"""Runs that are killed and go on: bit for bit the same, and never from a damaged or foreign checkpoint."""

import copy
import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from tests.digits import assert_equal, classifier, network, pair, values
from tests.programs import Program
from tests.training.validation_losses import set_validation_losses

PROGRAM = """
import sys, torch, pyro_vbd as vbd
torch.set_num_threads(1)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
x, y = torch.randn(300, 8), torch.randint(3, (300,))
model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=300)
guide = vbd.VBDGuide(model)
print("go", flush=True)
run = vbd.fit(model, guide, vbd.Batches(x, y, batch_size=10), epochs=12, seed=3, lr=1e-2, progress=False,
              kl_schedule=vbd.schedules.kl_ramp(2, 6), validation=vbd.Batches(x, y), patience=20, checkpoint=sys.argv[1])
losses = torch.tensor([record["loss"] for record in run.history])  # the parameters are those of the best epoch
torch.save({"losses": losses, **model.state_dict(), **guide.state_dict()}, sys.argv[2])
"""


def program(tmp_path: Path, name: str) -> Program:
    """The program at work, when it is about to train."""
    (tmp_path / "program.py").write_text(PROGRAM)
    files = str(tmp_path / f"{name}.ckpt"), str(tmp_path / f"{name}.pt")
    prints = tmp_path / f"{name} {time.monotonic_ns()}"
    started = Program(tmp_path / "program.py", *files, folder=tmp_path, prints=prints)
    while not started.stdout:
        assert started.process.is_alive(), started.stderr
        time.sleep(0.001)
    return started


def check_kills(tmp_path: Path, moments: int) -> None:
    whole = program(tmp_path, "whole")
    start = time.perf_counter()
    assert whole.wait() == 0
    seconds = time.perf_counter() - start
    expected = torch.load(tmp_path / "whole.pt", weights_only=True)
    chance = random.Random(0)
    killed = 0
    for moment in range(moments):
        run = program(tmp_path, str(moment))
        time.sleep(chance.uniform(0, 0.7 * seconds))
        run.process.kill()
        killed += run.wait() == -signal.SIGKILL
        assert program(tmp_path, str(moment)).wait() == 0
        assert_equal(torch.load(tmp_path / f"{moment}.pt", weights_only=True), expected)
    assert killed >= moments / 2, "the program was too quick to be killed"


def test_killed_and_resumed_is_bit_for_bit_the_same(tmp_path):
    check_kills(tmp_path, 2)


@pytest.mark.slow
def test_killed_at_twenty_moments(tmp_path):
    check_kills(tmp_path, 20)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("compile", [False, True])
def test_going_on_in_one_process_is_bit_for_bit_the_same(tmp_path, device, compile):
    x, y = torch.randn(65, 64), torch.randint(10, (65,))
    initial = classifier(65)
    ends = []
    for stops in ([6], [2, 3, 6]):
        for epochs in stops:
            model = copy.deepcopy(initial)
            guide = vbd.VBDGuide(model)
            path = tmp_path / f"{len(stops)}.ckpt"
            run = vbd.fit(model, guide, vbd.Batches(x, y, batch_size=20), epochs=epochs, seed=0, checkpoint=path,
                          progress=False, compile=compile)  # fmt: skip
        ends.append((values(model, guide), [record["loss"] for record in run.history]))
    assert ends[0][1] == ends[1][1]
    assert_equal(ends[0][0], ends[1][0])


def test_frozen_parameters_are_those_of_the_run(tmp_path, device):
    """A new process may have drawn others: its network was made before ``fit`` set the seed."""
    x, y = torch.randn(65, 64), torch.randint(10, (65,))
    initial, ends = network(), []
    initial[0].requires_grad_(False)
    for stops in ([4], [2, 4]):
        for number, epochs in enumerate(stops):
            net = copy.deepcopy(initial)
            if number:
                nn.init.normal_(net[0].weight)
            model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 65)
            guide = vbd.VBDGuide(model)
            guide.posteriors["q/2/weight"].log_var.requires_grad_(False).sub_(2.0 * number)
            run = vbd.fit(model, guide, vbd.Batches(x, y, batch_size=20), epochs=epochs, seed=0, progress=False,
                          checkpoint=tmp_path / f"{len(stops)}.ckpt", validation=[(x, y)], patience=9)  # fmt: skip
        assert "model.network.net.0.weight" not in run.best
        ends.append(values(model, guide))
    assert_equal(*ends)
    assert torch.equal(ends[1]["network.net.0.weight"], initial[0].weight)


def test_a_damaged_checkpoint_is_refused_and_the_previous_one_loads(tmp_path):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    path = tmp_path / "run.ckpt"
    model, guide = pair(20)
    vbd.fit(model, guide, [(x, y)], epochs=3, checkpoint=path, progress=False)
    whole = path.read_bytes()
    path.write_bytes(whole[:-100])
    with pytest.raises(ValueError, match=r"damaged.*previous"):
        vbd.fit(model, guide, [(x, y)], epochs=4, checkpoint=path, progress=False)
    assert path.read_bytes() == whole[:-100]  # nothing overwritten
    os.replace(f"{path}.previous", path)
    assert vbd.fit(model, guide, [(x, y)], epochs=2, checkpoint=path, progress=False).epoch == 2


def test_without_its_checkpoint_a_run_starts_anew(tmp_path):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    path = tmp_path / "run.ckpt"
    model, guide = pair(20)
    vbd.fit(model, guide, [(x, y)], epochs=3, checkpoint=path, progress=False)
    path.unlink()
    run = vbd.fit(model, guide, [(x, y)], epochs=1, checkpoint=path, progress=False)
    assert (run.epoch, run.step, len(run.history)) == (1, 1, 1)


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    vbd.fit(*pair(20), [(x, y)], epochs=1, checkpoint=tmp_path / "run.ckpt", progress=False)
    with pytest.raises(ValueError, match=r"another network.*shape"):
        vbd.fit(*pair(20, hidden=51), [(x, y)], epochs=2, checkpoint=tmp_path / "run.ckpt", progress=False)


def test_validation_may_begin_later(tmp_path):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    model, guide = pair(20)
    settings = {"checkpoint": tmp_path / "run.ckpt", "progress": False}
    vbd.fit(model, guide, [(x, y)], epochs=2, **settings)
    run = vbd.fit(model, guide, [(x, y)], epochs=4, validation=[(x, y)], patience=5, **settings)
    assert ["validation" in record for record in run.history] == [False, False, True, True]
    assert run.best_epoch in (2, 3)


def test_the_best_epoch_of_an_earlier_part_is_still_the_best(tmp_path, monkeypatch):
    set_validation_losses(monkeypatch, [2.0, 1.0, *[3.0] * 20])
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    model, guide = pair(20)
    ends = []
    settings = {"validation": [()], "patience": 9, "checkpoint": tmp_path / "run.ckpt", "progress": False,
                "callbacks": [lambda run: ends.append(copy.deepcopy(values(model, guide)))]}  # fmt: skip
    for epochs in (3, 5):
        run = vbd.fit(model, guide, [(x, y)], epochs=epochs, **settings)
        assert (run.best_epoch, run.step) == (1, epochs)
        assert_equal(values(model, guide), ends[1])


def lengths(tmp_path, *calls):
    """The epochs that a run has after each of these calls."""
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    model, guide = pair(20)
    settings = {"checkpoint": tmp_path / "run.ckpt", "progress": False}
    return [vbd.fit(model, guide, [(x, y)], **settings, **call).epoch for call in calls]


def stop_at(epoch):
    def stop(run):
        run.stop = run.stop or run.epoch == epoch
        return {"more": torch.randn(()).item()}

    return stop


def test_a_callback_that_stopped_a_run_is_asked_again(tmp_path):
    calls = [
        {"epochs": 5, "callbacks": [stop_at(2)]},
        {"epochs": 5, "callbacks": [stop_at(2)]},
        {"epochs": 5, "callbacks": [stop_at(3)]},
        {"epochs": 5},
    ]
    assert lengths(tmp_path, *calls) == [2, 2, 3, 5]


def test_patience_is_counted_anew(tmp_path, monkeypatch):
    set_validation_losses(monkeypatch, [1.0, *[2.0] * 20])
    held_out = {"validation": [()]}
    calls = [{"epochs": 9, "patience": patience, **held_out} for patience in (2, 2, 4)]
    assert lengths(tmp_path, *calls, {"epochs": 7, **held_out}, {"epochs": 9, "patience": 2, **held_out}) == [3, 3, 5, 7, 7]


def test_asking_a_callback_again_leaves_no_trace(tmp_path):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    initial, ends = classifier(20), []

    def draw(run):
        return {"draws": [random.random(), torch.randn(()).item()]}

    def stop(run):
        run.stop = run.epoch == 2

    for number, calls in enumerate(([[draw]], [[draw, stop], [draw, stop], [draw]])):
        for callbacks in calls:
            model = copy.deepcopy(initial)
            guide = vbd.VBDGuide(model)
            run = vbd.fit(model, guide, [(x, y)], epochs=4, callbacks=callbacks, checkpoint=tmp_path / f"{number}.ckpt",
                          seed=0, progress=False)  # fmt: skip
        ends.append((values(model, guide), [{**record, "seconds": 0} for record in run.history]))
    assert_equal(ends[0][0], ends[1][0])
    assert ends[0][1] == ends[1][1]
