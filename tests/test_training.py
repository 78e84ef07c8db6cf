import copy
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from tests.digits import classifier, digits


def pair(num_data=1200, **kwargs):
    model = classifier(num_data, **kwargs)
    return model, vbd.VBDGuide(model)


def values(model, guide):
    return {**model.state_dict(), **guide.state_dict()}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_learns_digits_and_records_what_it_did(device):
    x, y, x_test, y_test = digits(device)
    model, guide = pair()
    model.eval()
    run = vbd.fit(
        model, guide, vbd.Batches(x, y), epochs=25, lr=5e-3, progress=False, seed=0, device=device,
        kl_schedule=vbd.schedules.kl_ramp(2, 10), lr_schedule=vbd.schedules.linear_decay(0.5),
        validation=vbd.Batches(x_test, y_test, shuffle=False),
        callbacks=[vbd.monitors.sparsity(), vbd.monitors.alpha_quantiles((0.1, 0.9)),
                   vbd.monitors.kl_by_site(x[:1], y[:1])],
    )  # fmt: skip
    wrong = (vbd.predict(model, guide, x_test, num_samples=20).probs.argmax(-1) != y_test).float().mean()
    assert wrong < 0.08
    assert (run.epoch, run.step, len(run.history)) == (25, 25 * 12, 25)
    first, last = run.history[0], run.history[-1]
    assert [r["kl_weight"] for r in run.history[:4]] == pytest.approx([0, 0, 0, 1 / 8])
    assert last["lr"] == pytest.approx(5e-3 * (1 - 24 / 25) * 2)
    assert last["loss"] == pytest.approx(last["kl"] - last["log_likelihood"], rel=1e-4)
    assert last["validation"] < 0.5 * first["validation"]
    assert last["sparsity"] == pytest.approx(vbd.sparsity(guide))
    assert 0.5 < last["sparsity"] < 1
    assert last["log_alpha"]["0.weight"][0] < last["log_alpha"]["0.weight"][1]
    assert sum(last["kl_by_site"].values()) == pytest.approx(1200 * last["kl"], rel=0.02)
    assert run.elbo.kl_weight == 1.0
    assert not model.training


def test_same_seed_same_result_and_another_seed_another(device):
    x, y, *_ = digits(device, 300)
    initial = classifier(300)
    ends = []
    for seed in (0, 0, 1):
        model = copy.deepcopy(initial)
        guide = vbd.VBDGuide(model)
        vbd.fit(model, guide, vbd.Batches(x, y), epochs=2, seed=seed, progress=False)
        ends.append(values(model, guide))
    if device.type == "cpu":
        assert_equal(ends[0], ends[1])
    assert not torch.equal(ends[0]["posteriors.q/0/weight.loc"], ends[2]["posteriors.q/0/weight.loc"])


def test_kl_schedule_multiplies_the_weight_and_gives_it_back():
    x = torch.randn(20, 64)
    model, guide = pair(20)
    elbo = vbd.VBD_ELBO(kl_weight=0.5)
    run = vbd.fit(model, guide, [(x, torch.zeros(20, dtype=torch.long))], epochs=2, elbo=elbo, progress=False,
                  kl_schedule=lambda epoch, epochs: (epoch + 1) / epochs)  # fmt: skip
    assert [r["kl_weight"] for r in run.history] == [0.25, 0.5]
    assert elbo.kl_weight == 0.5


def test_early_stopping_ends_at_the_best_epoch():
    x, y = torch.randn(40, 64), torch.zeros(40, dtype=torch.long)
    model, guide = pair(40)

    def spoil(run):  # the validation loss rises from the third epoch on
        if run.epoch >= 3:
            with torch.no_grad():
                guide.posteriors["q/2/weight"].loc.add_(torch.randn(10, 50))

    def copied(run):
        return {"copy": {name: value.clone() for name, value in values(model, guide).items()}}

    run = vbd.fit(model, guide, vbd.Batches(x, y), epochs=50, lr=1e-2, validation=[(x, y)], patience=3, progress=False,
                  callbacks=[copied, spoil])  # fmt: skip
    assert run.epoch < 50
    validation = [record["validation"] for record in run.history]
    assert run.best_epoch == validation.index(min(validation)) == run.epoch - 4
    assert_equal(values(model, guide), run.history[run.best_epoch]["copy"])


def test_a_callback_can_stop_the_run():
    x, y = torch.randn(40, 64), torch.zeros(40, dtype=torch.long)
    model, guide = pair(40)
    run = vbd.fit(model, guide, vbd.Batches(x, y), epochs=50, progress=False,
                  callbacks=[lambda run: setattr(run, "stop", run.epoch == 3)])  # fmt: skip
    assert run.epoch == 3


def test_trains_a_hand_written_model_with_pyro_params():
    x = torch.randn(200, 3)
    y = x @ torch.tensor([1.0, 0.0, -1.0]) + 5.0

    def model(x, y=None):
        gamma = pyro.sample("gamma", dist.Uniform(0, 1e3).expand([3]).to_event(1))
        w = pyro.sample("w", dist.Normal(0, gamma.sqrt()).to_event(1))
        offset = pyro.param("offset", torch.zeros(()))
        with pyro.plate("data", 200, subsample=x) as rows:
            pyro.sample("y", dist.Normal(rows @ w + offset, 0.1), obs=y)

    guide = vbd.VBDGuide(model)  # its parameters are made at the first batch
    vbd.fit(model, guide, vbd.Batches(x, y), epochs=200, lr=5e-2, progress=False)
    assert torch.allclose(guide.median()["w"], torch.tensor([1.0, 0.0, -1.0]), atol=0.05)
    assert pyro.param("offset").item() == pytest.approx(5.0, abs=0.05)


# --- going on after an interruption ----------------------------------------------------------------------------------

PROGRAM = """
import sys, torch, pyro_vbd as vbd
torch.set_num_threads(1)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(), torch.nn.Linear(16, 3))
x, y = torch.randn(300, 8), torch.randint(3, (300,))
model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=300)
guide = vbd.VBDGuide(model)
print("go", flush=True)
vbd.fit(model, guide, vbd.Batches(x, y, batch_size=10), epochs=25, seed=3, lr=1e-2, progress=False,
        kl_schedule=vbd.schedules.kl_ramp(2, 6), validation=vbd.Batches(x, y), patience=20, checkpoint=sys.argv[1])
torch.save({**model.state_dict(), **guide.state_dict()}, sys.argv[2])
"""


def program(tmp_path: Path, name: str) -> subprocess.Popen:
    arguments = [sys.executable, "-c", PROGRAM, str(tmp_path / f"{name}.ckpt"), str(tmp_path / f"{name}.pt")]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1], text=True)


def check_kills(tmp_path: Path, moments: int) -> None:
    with program(tmp_path, "whole") as whole:
        whole.stdout.readline()
        start = time.perf_counter()
        assert whole.wait(120) == 0
        seconds = time.perf_counter() - start
    expected = torch.load(tmp_path / "whole.pt", weights_only=True)
    chance = random.Random(0)
    killed = 0
    for moment in range(moments):
        with program(tmp_path, str(moment)) as run:
            run.stdout.readline()
            time.sleep(chance.uniform(0, 0.7 * seconds))
            os.kill(run.pid, signal.SIGKILL)
            killed += run.wait() == -signal.SIGKILL
        with program(tmp_path, str(moment)) as again:
            again.stdout.read()
            assert again.wait(120) == 0
        assert_equal(torch.load(tmp_path / f"{moment}.pt", weights_only=True), expected)
    assert killed >= moments / 2, "the program was too quick to be killed"


def test_killed_and_resumed_is_bit_for_bit_the_same(tmp_path):
    check_kills(tmp_path, 2)


@pytest.mark.slow
def test_killed_at_twenty_moments(tmp_path):
    check_kills(tmp_path, 20)


def test_going_on_in_one_process_is_bit_for_bit_the_same(tmp_path, device):
    x, y = torch.randn(60, 64), torch.randint(10, (60,))
    initial = classifier(60)
    ends = []
    for stops in ([6], [2, 3, 6]):
        for epochs in stops:
            model = copy.deepcopy(initial)
            guide = vbd.VBDGuide(model)
            path = tmp_path / f"{len(stops)}.ckpt"
            run = vbd.fit(model, guide, vbd.Batches(x, y, batch_size=20), epochs=epochs, seed=0, checkpoint=path,
                          progress=False)  # fmt: skip
        ends.append((values(model, guide), [record["loss"] for record in run.history]))
    assert ends[0][1] == ends[1][1]
    assert_equal(ends[0][0], ends[1][0])


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


def test_a_run_killed_between_the_two_renamings_goes_on_from_the_previous_file(tmp_path):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    path = tmp_path / "run.ckpt"
    model, guide = pair(20)
    vbd.fit(model, guide, [(x, y)], epochs=3, checkpoint=path, progress=False)
    path.unlink()
    run = vbd.fit(model, guide, [(x, y)], epochs=3, checkpoint=path, progress=False)
    assert [record["epoch"] for record in run.history] == [0, 1, 2]
    assert run.step == 3


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    vbd.fit(*pair(20), [(x, y)], epochs=1, checkpoint=tmp_path / "run.ckpt", progress=False)
    with pytest.raises(ValueError, match=r"another network.*shape"):
        vbd.fit(*pair(20, hidden=51), [(x, y)], epochs=2, checkpoint=tmp_path / "run.ckpt", progress=False)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_a_loss_that_is_no_number_names_step_site_and_checkpoint(tmp_path):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    model, guide = pair(20)
    path = tmp_path / "run.ckpt"
    vbd.fit(model, guide, [(x, y)], epochs=2, checkpoint=path, progress=False)
    before = path.read_bytes()

    def break_it(run):
        with torch.no_grad():
            guide.posteriors["q/0/weight"].log_var[0, 0] = float("nan")

    with pytest.raises(FloatingPointError, match=r"step 3 \(epoch 3\).*0\.weight.*last good state is in .*run\.ckpt"):
        vbd.fit(model, guide, [(x, y)], epochs=9, checkpoint=path, progress=False, callbacks=[break_it])
    path.write_bytes(before)
    assert vbd.fit(model, guide, [(x, y)], epochs=3, checkpoint=path, progress=False).epoch == 3


def test_parameters_that_blow_up_are_not_saved(tmp_path):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    model, guide = pair(20)
    path = tmp_path / "run.ckpt"
    vbd.fit(model, guide, [(x, y)], epochs=1, checkpoint=path, progress=False)
    with pytest.raises(FloatingPointError, match="no longer finite after step 2"):
        vbd.fit(model, guide, [(x, y)], epochs=5, checkpoint=path, progress=False,
                lr_schedule=lambda epoch, epochs: float("inf"))  # fmt: skip
    assert all(v.isfinite().all() for v in vbd.load_checkpoint(path)["values"].values())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"epochs": 1, "patience": 2}, "patience=2 needs"),
        ({"epochs": 1, "data": []}, "no batch"),
        ({"epochs": 1, "validation": []}, "validation data gave no batch"),
    ],
)
def test_bad_arguments(arguments, message):
    model, guide = pair(20)
    data = arguments.pop("data", [(torch.randn(20, 64), torch.randint(10, (20,)))])
    with pytest.raises(ValueError, match=message):
        vbd.fit(model, guide, data, progress=False, **arguments)


def test_a_generator_that_is_used_up_is_found():
    model, guide = pair(20)
    data = iter([(torch.randn(20, 64), torch.randint(10, (20,)))])
    with pytest.raises(ValueError, match="passed through again"):
        vbd.fit(model, guide, data, epochs=1, progress=False)


def test_a_dataloader_works_as_data():
    x, y = torch.randn(30, 64), torch.randint(10, (30,))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x.cpu(), y.cpu()), batch_size=10)
    model, guide = pair(30)
    run = vbd.fit(model, guide, loader, epochs=2, device=x.device, progress=False)
    assert run.step == 6


def test_batchnorm_statistics_move_in_training_and_not_in_validation():
    net = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 20)
    x, y = torch.randn(20, 4) + 3, torch.randint(2, (20,))
    vbd.fit(model, vbd.VBDGuide(model), [(x, y)], epochs=3, validation=[(x, y)], progress=False)
    assert int(model.network.net[1].num_batches_tracked) == 3
    assert int(net[1].num_batches_tracked) == 0
