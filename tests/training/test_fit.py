import copy
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from tests.digits import assert_equal, classifier, digits, pair, values
from tests.training.validation_losses import set_validation_losses


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


def test_without_patience_a_run_ends_at_its_last_epoch(monkeypatch):
    set_validation_losses(monkeypatch, [2.0, 1.0, 3.0, 3.0])
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    model, guide = pair(20)
    ends = []
    run = vbd.fit(model, guide, [(x, y)], epochs=4, validation=[()], progress=False,
                  callbacks=[lambda run: ends.append(copy.deepcopy(values(model, guide)))])  # fmt: skip
    assert run.best_epoch == 1
    assert_equal(values(model, guide), ends[-1])


def test_every_group_of_an_optimizer_has_its_rate():
    model, guide = pair(20)
    seen = []

    def make(parameters):
        groups = [{"params": parameters[:1], "lr": 1e-2}, {"params": parameters[1:]}]
        return torch.optim.Adam(groups, lr=1e-3)

    vbd.fit(model, guide, [(torch.randn(20, 64), torch.randint(10, (20,)))], epochs=2, optimizer=make, progress=False,
            lr_schedule=vbd.schedules.linear_decay(),
            callbacks=[lambda run: seen.append([group["lr"] for group in run.optimizer.param_groups])])  # fmt: skip
    assert seen == [[1e-2, 1e-3], [5e-3, 5e-4]]


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_a_run_that_fails_gives_the_weight_of_the_kl_back():
    model, guide = pair(20)
    elbo = vbd.VBD_ELBO(kl_weight=0.5)
    with pytest.raises(FloatingPointError):
        vbd.fit(model, guide, [(torch.full((20, 64), 1e30), torch.randint(10, (20,)))], epochs=1, elbo=elbo,
                kl_schedule=lambda epoch, epochs: 0.1, progress=False)  # fmt: skip
    assert elbo.kl_weight == 0.5


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_trains_where_gradients_are_off(mode):
    data, ends = vbd.Batches(torch.randn(20, 64), torch.randint(10, (20,)), batch_size=10), []
    for around in (nullcontext, mode):
        pyro.set_rng_seed(0)
        model, guide = pair(20)
        with around():
            vbd.fit(model, guide, data, epochs=2, seed=1, validation=data, patience=2, progress=False)
        ends.append(values(model, guide))
    assert_equal(*ends)


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


# --- compiled --------------------------------------------------------------------------------------------------------


def compiled_and_not(net, *data, **kwargs):
    """Two runs from one start, the second compiled."""
    model = vbd.Classifier(net, vbd.priors.Horseshoe(), num_data=45)
    starts = model, vbd.VBDGuide(model)
    runs = []
    for compile in (False, True):
        model, guide = copy.deepcopy(starts)
        guide._model.model = model
        runs.append(vbd.fit(model, guide, *data, seed=0, progress=False, compile=compile, **kwargs))
    return runs


def test_a_compiled_run_is_the_same_run(float64, monkeypatch):
    made = []
    monkeypatch.setattr("pyro_vbd.compiling.compiled_step.machine_code", lambda graph, *_: made.append(graph) or graph)
    net = nn.Sequential(nn.Linear(64, 5, bias=False), nn.BatchNorm1d(5), nn.Linear(5, 10))
    x, y = torch.randn(45, 64), torch.randint(10, (45,))
    eager, compiled = compiled_and_not(
        net, vbd.Batches(x, y, batch_size=20), epochs=4, lr=1e-2,  # with a smaller batch at the end of each pass
        kl_schedule=vbd.schedules.kl_ramp(1, 3), lr_schedule=vbd.schedules.linear_decay(0.5), validation=[(x, y)],
    )  # fmt: skip
    torch.testing.assert_close(
        values(compiled.model, compiled.guide), values(eager.model, eager.guide), rtol=1e-6, atol=1e-8
    )
    assert compiled.step == eager.step == 12
    assert len(made) == 1  # the smaller batches do without
    for ours, theirs in zip(compiled.history, eager.history, strict=True):
        assert {**ours, "seconds": 0} == pytest.approx({**theirs, "seconds": 0}, rel=1e-6)


def test_compiled_by_inductor():
    x, y = torch.randn(45, 64), torch.randint(10, (45,))
    eager, compiled = compiled_and_not(nn.Linear(64, 10), vbd.Batches(x, y, batch_size=20), epochs=3)
    assert compiled.history[-1]["loss"] == pytest.approx(eager.history[-1]["loss"], rel=1e-3)


@pytest.mark.usefixtures("traced")
def test_the_bar_says_that_it_compiles(capsys):
    model, guide = pair(20)
    vbd.fit(model, guide, [(torch.randn(20, 64), torch.randint(10, (20,)))], epochs=1, compile=True)
    assert "compiling the step" in capsys.readouterr().err


class Worsening:
    """Data whose labels are none from the second pass on; ``find_parameters`` takes a batch before the first."""

    def __init__(self):
        self.x, self.y, self.passes = torch.randn(20, 64), torch.randint(10, (20,)), 0

    def __iter__(self):
        self.passes += 1
        yield self.x, self.y + (10 if self.passes > 2 else 0)


@pytest.mark.usefixtures("traced")
def test_data_that_come_anew_are_looked_at_in_each_pass():
    model, guide = pair(20)
    with pytest.raises(ValueError, match="class labels"):
        vbd.fit(model, guide, Worsening(), epochs=3, compile=True, progress=False)


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize("resumed", [False, True])
def test_every_batch_of_the_first_pass_is_looked_at(resumed, tmp_path):
    model, guide = pair(20)
    x, y = torch.randn(20, 64), torch.arange(20) % 10
    settings = {"checkpoint": tmp_path / "run.ckpt", "compile": True, "progress": False}
    if resumed:
        vbd.fit(model, guide, vbd.Batches(x, y, batch_size=10), epochs=1, **settings)
    y[15] = 10  # in the second batch
    with pytest.raises(ValueError, match="class labels"):
        vbd.fit(model, guide, vbd.Batches(x, y, batch_size=10, shuffle=False), epochs=2, **settings)


# --- bad input -------------------------------------------------------------------------------------------------------


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


def test_a_callback_does_not_write_over_the_record():
    model, guide = pair(20)
    data = [(torch.randn(20, 64), torch.randint(10, (20,)))]
    with pytest.raises(ValueError, match=r"a callback returns \['loss', 'lr'\], which the record holds already"):
        vbd.fit(model, guide, data, epochs=1, progress=False, callbacks=[lambda run: {"lr": 1, "loss": 2, "mine": 3}])


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
