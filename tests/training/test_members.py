import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.testing import assert_close

import pyro_vbd as vbd
from tests.digits import assert_equal, classifier, digits
from tests.member_runs import CLASSES, X, copies, data, members, same_noise, state  # noqa: F401  (a fixture)

SCHEDULES = {"kl_schedule": vbd.schedules.kl_ramp(1, 3), "lr_schedule": vbd.schedules.linear_decay(0.5)}


def batches(**settings):
    return vbd.Batches(*data(), **{"batch_size": 20, **settings})  # with a smaller batch at the end of each pass


def own_runs(models, guides, own, **settings):
    """The run that each member would have by itself."""
    return [
        vbd.fit(*pair, batches(), progress=False, seed=0, **settings, **arguments)
        for *pair, arguments in zip(models, guides, own, strict=True)
    ]


def assert_same(ours, theirs, tolerance):
    assert_close(state(ours), state(theirs), rtol=tolerance, atol=tolerance)
    assert (ours.epoch, ours.step, ours.best_epoch, ours.stop) == (
        theirs.epoch, theirs.step, theirs.best_epoch, theirs.stop
    )  # fmt: skip
    for one, other in zip(ours.history, theirs.history, strict=True):
        assert {**one, "seconds": 0} == pytest.approx({**other, "seconds": 0}, rel=tolerance, abs=tolerance)


# --- the same runs ---------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64", "same_noise")
def test_each_member_ends_where_its_own_run_does(monkeypatch):
    monkeypatch.setattr("pyro_vbd.training.members._LOOK_EVERY", 2)
    models, guides = members(3, prior=lambda k: vbd.priors.Horseshoe(0.1 * (k + 1)))
    alone = copies(models, guides)
    rates, weights = torch.tensor([1e-2, 2e-2, 3e-2], dtype=torch.float64), (0.1, 1.0, 0.5)
    settings = {"epochs": 4, "validation": [data(30)], "callbacks": [vbd.monitors.sparsity()], **SCHEDULES}
    runs = vbd.fit_members(
        models, guides, batches(), lr=rates, elbo=[vbd.VBD_ELBO(w) for w in weights], progress=False, seed=0, **settings
    )
    own = [{"lr": float(rate), "elbo": vbd.VBD_ELBO(weight)} for rate, weight in zip(rates, weights, strict=True)]
    for k, (ours, theirs) in enumerate(zip(runs, own_runs(*alone, own, **settings), strict=True)):
        assert ours.model is models[k]
        assert ours.guide is guides[k]
        assert_same(ours, theirs, 1e-8)
        assert ours.elbo.kl_weight == weights[k]
        assert ours.failure is None
        assert models[k].training == theirs.model.training
    assert runs[0].history[-1]["loss"] != pytest.approx(runs[1].history[-1]["loss"], rel=1e-3)


@pytest.mark.usefixtures("same_noise")
def test_compiled_by_inductor():
    models, guides = members(2)
    alone = copies(models, guides)
    runs = vbd.fit_members(models, guides, batches(), epochs=3, lr=1e-2, compile=True, progress=False, seed=0)
    for ours, theirs in zip(runs, own_runs(*alone, [{}, {}], epochs=3, lr=1e-2), strict=True):
        assert_same(ours, theirs, 1e-4)


@pytest.mark.usefixtures("float64", "same_noise")
@pytest.mark.parametrize("kind", ["convolutions", "embedding and attention"])
def test_networks_of_other_layers(kind):
    nets = {
        "convolutions": lambda: nn.Sequential(
            nn.Unflatten(1, (2, 4)), nn.Conv1d(2, 3, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Flatten(), nn.Linear(6, CLASSES)
        ),
        "embedding and attention": lambda: nn.Sequential(
            nn.Unflatten(1, (2, 4)), nn.TransformerEncoderLayer(4, 2, 5, dropout=0.0, batch_first=True), nn.Flatten(),
            nn.Linear(X, CLASSES),
        ),
    }  # fmt: skip
    models, guides = members(2, nets[kind])
    alone = copies(models, guides)
    runs = vbd.fit_members(models, guides, batches(), epochs=2, lr=1e-2, progress=False, seed=0)
    for ours, theirs in zip(runs, own_runs(*alone, [{}, {}], epochs=2, lr=1e-2), strict=True):
        assert_same(ours, theirs, 1e-8)


@pytest.mark.usefixtures("float64", "same_noise")
def test_hand_written_models():
    x = torch.randn(30, 3)
    y = x @ torch.tensor([1.0, 0.0, -1.0]) + 1.0

    def make(k, offset="offset"):
        def model(x, y=None):
            gamma = pyro.sample("gamma", dist.HalfCauchy(0.1 * (k + 1)).expand([3]).to_event(1))
            w = pyro.sample("w", dist.Normal(0, gamma).to_event(1))
            shift = pyro.param(f"{offset}{k}", torch.zeros(()))
            with pyro.plate("data", 30, subsample=x) as rows:
                pyro.sample("y", dist.Normal(rows @ w + shift, 0.1), obs=y)

        return model

    ends = []
    for together in (True, False):
        pyro.clear_param_store()
        models = [make(k) for k in range(2)]
        guides = []
        for model in models:
            torch.manual_seed(0)
            guides.append(vbd.VBDGuide(model))
            guides[-1](x, y)
        settings = {"epochs": 40, "lr": 5e-2, "progress": False, "seed": 0}
        if together:
            vbd.fit_members(models, guides, [(x, y)], **settings)
        else:
            for pair in zip(models, guides, strict=True):
                vbd.fit(*pair, [(x, y)], **settings)
        ends.append(([guide.median() for guide in guides], [pyro.param(f"offset{k}").item() for k in range(2)]))
    assert_close(*ends, rtol=1e-8, atol=1e-8)
    assert ends[0][1][0] > 0.5
    first = make(0)
    shared = [lambda x, y=None: first(x, y) for _ in range(2)]
    guides = [vbd.VBDGuide(model) for model in shared]
    with pytest.raises(ValueError, match=r"members share a tensor of shape \(\) that training changes"):
        vbd.fit_members(shared, guides, [(x, y)], epochs=1, progress=False)


def test_learns_digits_from_several_seeds(device):
    x, y, x_test, y_test = digits(device)
    models = [classifier(1200) for _ in range(3)]
    guides = [vbd.VBDGuide(model) for model in models]
    runs = vbd.fit_members(
        models, guides, vbd.Batches(x, y), epochs=25, lr=5e-3, progress=False, seed=0, device=device,
        kl_schedule=vbd.schedules.kl_ramp(2, 10), callbacks=[vbd.monitors.sparsity()],
    )  # fmt: skip
    assert len({run.history[-1]["loss"] for run in runs}) == 3
    for run in runs:
        wrong = vbd.predict(run.model, run.guide, x_test, num_samples=20).probs.argmax(-1) != y_test
        assert wrong.float().mean() < 0.1
        assert run.history[-1]["sparsity"] == pytest.approx(vbd.sparsity(run.guide))
        assert run.step == 25 * 12


# --- members that stop alone -----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("float64", "same_noise")
def test_a_member_that_stops_stays_as_it_is():
    models, guides = members(3)
    alone = copies(models, guides)

    def stop(run):
        run.stop = run.model is models[1] and run.epoch == 2

    runs = vbd.fit_members(models, guides, batches(), epochs=4, lr=1e-2, progress=False, seed=0, callbacks=[stop])
    assert [run.epoch for run in runs] == [4, 2, 4]
    theirs = own_runs(
        *alone, [{}, {"callbacks": [lambda run: setattr(run, "stop", run.epoch == 2)]}, {}], epochs=4, lr=1e-2
    )
    for ours, its in zip(runs, theirs, strict=True):  # buffers among the rest
        assert_same(ours, its, 1e-8)


@pytest.mark.usefixtures("float64", "same_noise")
def test_early_stopping_counts_for_each_member_by_itself():
    models, guides = members(3)
    alone = copies(models, guides)
    rates = [1e-2, 1.0, 1e-3]
    settings = {"epochs": 12, "patience": 2, "validation": [data(30)]}
    runs = vbd.fit_members(models, guides, batches(), lr=rates, progress=False, seed=0, **settings)
    assert runs[1].epoch < 12
    assert len({run.epoch for run in runs}) > 1
    for ours, theirs in zip(runs, own_runs(*alone, [{"lr": rate} for rate in rates], **settings), strict=True):
        assert_same(ours, theirs, 1e-6)


@pytest.mark.usefixtures("float64", "same_noise")
def test_a_member_whose_loss_is_not_finite_stops_alone_and_is_named():
    models, guides = members(3)
    alone = copies(models, guides)

    def break_one(run):
        if run.model is models[1] and run.epoch == 2:
            with torch.no_grad():
                run.guide.posteriors["q/3/weight"].log_var[0, 0] = float("nan")

    with pytest.warns(UserWarning, match=r"member 1 stops, and the others go on: the loss is nan at step 6 .*3\.weight"):
        runs = vbd.fit_members(models, guides, batches(), epochs=4, lr=1e-2, progress=False, seed=0, callbacks=[break_one])
    assert [run.epoch for run in runs] == [4, 2, 4]
    assert [run.step for run in runs] == [12, 6, 12]
    assert "the loss is nan at step 6" in runs[1].failure
    theirs = own_runs(*alone, [{}, {}, {}], epochs=4, lr=1e-2)
    for k in (0, 2):
        assert_same(runs[k], theirs[k], 1e-8)
        assert runs[k].failure is None


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_the_parameters_of_a_member_are_as_before_its_step_that_went_wrong(monkeypatch):
    monkeypatch.setattr("pyro_vbd.training.members._LOOK_EVERY", 3)
    models, guides = members(2, lambda: nn.Linear(X, CLASSES))
    before = copy.deepcopy(state_of(guides[1]))
    with torch.no_grad():
        guides[1].posteriors["q/weight"].log_var[0, 0] = before["posteriors.q/weight.log_var"][0, 0] = float("inf")
    with pytest.warns(UserWarning, match="member 1 stops"):
        runs = vbd.fit_members(models, guides, [data()] * 8, epochs=1, progress=False)
    assert_equal(state_of(guides[1]), before)
    assert [run.step for run in runs] == [8, 0]


def state_of(guide):
    return guide.state_dict()


@pytest.mark.filterwarnings("ignore:member", "ignore:Encountered NaN")
def test_a_pass_ends_where_no_member_is_left(monkeypatch):
    class Counted:
        taken = 0

        def __iter__(self):
            for _ in range(20):
                self.taken += 1
                yield data()

    monkeypatch.setattr("pyro_vbd.training.members._LOOK_EVERY", 2)
    models, guides = members(2, lambda: nn.Linear(X, CLASSES))
    for guide in guides:
        guide.posteriors["q/weight"].log_var.data[0, 0] = float("nan")
    batches = Counted()
    with pytest.raises(FloatingPointError, match="no member is left"):
        vbd.fit_members(models, guides, batches, epochs=1, progress=False)
    assert batches.taken < 10  # some to find the parameters


@pytest.mark.filterwarnings("ignore:member", "ignore:Encountered NaN")
def test_when_no_member_is_left_the_run_fails():
    models, guides = members(2, lambda: nn.Linear(X, CLASSES))
    with torch.no_grad():
        for guide in guides:
            guide.posteriors["q/weight"].log_var[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="no member is left; the last one, 1, fails since the loss is nan"):
        vbd.fit_members(models, guides, batches(), epochs=2, progress=False)


@pytest.mark.filterwarnings("ignore:member")
def test_parameters_that_blow_up_stop_a_member_too():
    models, guides = members(2, lambda: nn.Linear(X, CLASSES))
    runs = vbd.fit_members(models, guides, [data()], epochs=2, lr=[1e-3, float("inf")], progress=False)
    assert [run.epoch for run in runs] == [2, 0]
    assert "no longer finite after step 1" in runs[1].failure


# --- being killed ----------------------------------------------------------------------------------------------------


def test_goes_on_from_a_checkpoint_bit_for_bit(tmp_path):
    def stop(run):
        run.stop = run.stop or (run.epoch == 3 and run.history[-1]["lr"] > 0.1)

    models, guides = members(3)
    again = copies(models, guides)
    settings = {"validation": [data(30)], "lr": [1e-2, 0.5, 1e-2], "progress": False, "seed": 3, "patience": 7, **SCHEDULES}
    whole = vbd.fit_members(models, guides, batches(batch_size=15), epochs=8, callbacks=[stop], **settings)
    assert [run.epoch for run in whole] == [8, 3, 8]

    class Killed(Exception):
        pass

    def kill(run):
        if run.epoch == 6:
            raise Killed

    path = tmp_path / "members.ckpt"
    first = copies(*again)
    with pytest.raises(Killed):
        vbd.fit_members(*first, batches(batch_size=15), epochs=8, checkpoint=path, callbacks=[stop, kill], **settings)
    resumed = vbd.fit_members(*again, batches(batch_size=15), epochs=8, checkpoint=path, callbacks=[stop], **settings)
    for ours, theirs in zip(resumed, whole, strict=True):
        assert_close(state(ours), state(theirs), rtol=0, atol=0)
        assert (ours.epoch, ours.step, ours.best_epoch, ours.stop) == (
            theirs.epoch, theirs.step, theirs.best_epoch, theirs.stop
        )  # fmt: skip
        assert [{**r, "seconds": 0} for r in ours.history] == [{**r, "seconds": 0} for r in theirs.history]


@pytest.mark.filterwarnings("ignore:member", "ignore:Encountered NaN")
def test_a_member_that_has_failed_stays_so(tmp_path):
    models, guides = members(2, lambda: nn.Linear(X, CLASSES))
    settings = {"lr": [1e-3, float("inf")], "progress": False, "checkpoint": tmp_path / "run.ckpt"}
    vbd.fit_members(models, guides, [data()], epochs=1, **settings)
    runs = vbd.fit_members(*members(2, lambda: nn.Linear(X, CLASSES)), [data()], epochs=2, **settings)
    assert [run.epoch for run in runs] == [2, 0]
    assert "no longer finite" in runs[1].failure


@pytest.mark.filterwarnings("error")
def test_members_that_had_stopped_together_go_on_without_what_stopped_them(tmp_path):
    pairs = members(2, lambda: nn.Linear(X, CLASSES))
    settings = {"epochs": 4, "progress": False, "checkpoint": tmp_path / "run.ckpt"}
    stop = [lambda run: setattr(run, "stop", run.epoch == 2)]
    for callbacks, epochs in ((stop, 2), (stop, 2), ([], 4)):
        runs = vbd.fit_members(*pairs, [data()], callbacks=callbacks, **settings)
        assert [run.epoch for run in runs] == [epochs] * 2


def test_a_member_that_had_stopped_before_the_others_stays_so(tmp_path):
    models, guides = members(2, lambda: nn.Linear(X, CLASSES))
    settings = {"progress": False, "checkpoint": tmp_path / "run.ckpt"}
    stop = [lambda run: setattr(run, "stop", run.model is models[1] and run.epoch == 1)]
    vbd.fit_members(models, guides, [data()], epochs=3, callbacks=stop, **settings)
    with pytest.warns(UserWarning, match="member 1 had stopped at epoch 1 and stays there, for the others are at 3: train"):
        runs = vbd.fit_members(models, guides, [data()], epochs=4, **settings)
    assert [run.epoch for run in runs] == [4, 1]


def test_checkpoints_of_other_runs_are_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    pairs = members(2, lambda: nn.Linear(X, CLASSES))
    settings = {"epochs": 1, "progress": False, "checkpoint": path}
    vbd.fit_members(*pairs, [data()], **settings)
    with pytest.raises(ValueError, match="holds 2 members: pass it to fit_members"):
        vbd.fit(pairs[0][0], pairs[1][0], [data()], **settings)
    with pytest.raises(ValueError, match="a run of 2 members, and there are 3"):
        vbd.fit_members(*members(3, lambda: nn.Linear(X, CLASSES)), [data()], **settings)
    with pytest.raises(ValueError, match="another network"):
        vbd.fit_members(*members(2), [data()], **settings)
    path.unlink()
    vbd.fit(pairs[0][0], pairs[1][0], [data()], **settings)
    for count in (1, 2):
        with pytest.raises(ValueError, match="holds a run of fit: pass it to fit"):
            vbd.fit_members(pairs[0][:count], pairs[1][:count], [data()], **settings)


def test_swapped_members_are_refused_by_number(tmp_path):
    def make(order):
        return members(2, lambda: nn.Linear(X, CLASSES), lambda k: vbd.priors.Horseshoe(order[k]))

    settings = {"progress": False, "checkpoint": tmp_path / "run.ckpt"}
    vbd.fit_members(*make((1.0, 2.0)), [data()], epochs=1, **settings)
    with pytest.raises(ValueError, match=r"member 0 of .*run.ckpt .*'weight' is Horseshoe\(scale=1\) there and Horseshoe"):
        vbd.fit_members(*make((2.0, 1.0)), [data()], epochs=2, **settings)
    third = make((1.0, 3.0))
    start = copy.deepcopy(state_of(third[1][0]))
    with pytest.raises(ValueError, match=r"member 1 of .*run.ckpt"):
        vbd.fit_members(*third, [data()], epochs=2, **settings)
    assert_equal(state_of(third[1][0]), start)


# --- bad input -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "epochs=0"),
        ({"lr": [1e-3]}, "lr has 1 entries for 2 members"),
        ({"elbo": [vbd.VBD_ELBO()] * 3}, "elbo has 3 entries for 2 members"),
        ({"data": []}, "no batch"),
        ({"optimizer": torch.optim.SGD}, "member 0 has SGD"),
    ],
)
def test_bad_arguments(arguments, message):
    pairs = members(2, lambda: nn.Linear(X, CLASSES))
    settings = {"epochs": 1, "data": [data()], "progress": False, **arguments}
    with pytest.raises(ValueError, match=message):
        vbd.fit_members(*pairs, settings.pop("data"), **settings)


@pytest.mark.parametrize("resumed", [False, True])
def test_every_batch_of_the_first_pass_is_looked_at(resumed, tmp_path):
    x, y = data(20)
    path = tmp_path / "run.ckpt"
    if resumed:
        pairs = members(2, lambda: nn.Linear(X, CLASSES))
        vbd.fit_members(*pairs, vbd.Batches(x, y, batch_size=10), epochs=1, checkpoint=path, progress=False)
    y[15] = CLASSES  # in the second batch
    with pytest.raises(ValueError, match="class labels"):
        vbd.fit_members(
            *members(2, lambda: nn.Linear(X, CLASSES)), vbd.Batches(x, y, batch_size=10, shuffle=False),
            epochs=2, progress=False, checkpoint=path,
        )  # fmt: skip


def test_data_that_come_anew_are_looked_at_in_each_pass():
    def worsen(run):
        batch[1] += CLASSES

    batch = list(data(20))
    with pytest.raises(ValueError, match="class labels"):
        vbd.fit_members(*members(2, lambda: nn.Linear(X, CLASSES)), [batch], epochs=2, progress=False, callbacks=[worsen])


def test_models_and_guides_come_in_pairs():
    models, guides = members(2, lambda: nn.Linear(X, CLASSES))
    for pair in ((models, guides[:1]), ([], [])):
        with pytest.raises(ValueError, match="pass a guide for each model"):
            vbd.fit_members(*pair, [data()], epochs=1)
    with pytest.raises(ValueError, match="members share a tensor"):
        vbd.fit_members(2 * models[:1], 2 * guides[:1], [data()], epochs=1, progress=False)


def test_each_learns_its_own_hyperparameter():
    models, guides = members(2, lambda: nn.Linear(X, CLASSES), lambda k: vbd.priors.Horseshoe(vbd.priors.Learned(0.5)))
    vbd.fit_members(models, guides, [data()], epochs=3, lr=[1e-3, 1e-2], progress=False)
    values = [model.network.learned()["weight_scale"].item() for model in models]
    assert len({0.5, *values}) == 3


def test_a_parameter_of_one_name_would_be_one_for_all():
    prior = vbd.priors.Laplace(vbd.priors.Learned(0.5))  # stated without a network, it is Pyro's

    def model(x, y):
        logits = x @ prior.sample("w", torch.zeros(X, CLASSES))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Categorical(logits=logits), obs=y)

    guides = [vbd.VBDGuide(model) for _ in range(2)]
    with pytest.raises(ValueError, match=r"members share a tensor of shape \(\) .* a name of its own"):
        vbd.fit_members([model, model], guides, [data()], epochs=1, progress=False)


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 0)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_backend", lambda: "gloo")
    with pytest.raises(ValueError, match=r"one process, and torch\.distributed has 2: leave out init_process_group"):
        vbd.fit_members(*members(2, lambda: nn.Linear(X, CLASSES)), [data()], epochs=1)


def test_the_bar_says_what_it_does(capsys):
    vbd.fit_members(*members(2, lambda: nn.Linear(X, CLASSES)), [data()], epochs=1)
    shown = capsys.readouterr().err
    assert "fit 2 members" in shown
    assert "tracing the step" in shown


@pytest.mark.slow
def test_a_step_that_inductor_cannot_fuse_is_compiled_all_the_same(recwarn):
    """torch 2.14 fails on this one at first: dropout rates by layer, of two members of a wide network."""
    x, y = torch.randn(200, 784), torch.randint(10, (200,))
    net = nn.Sequential(*(part for n in (784, 100, 100) for part in (nn.Linear(n, 100), nn.ReLU())), nn.Linear(100, 10))
    models = [vbd.Classifier(net, vbd.priors.LogUniform(vbd.priors.kingma), num_data=200) for _ in range(2)]
    guides = [vbd.VBDGuide(model, alpha="layer") for model in models]
    vbd.fit_members(models, guides, vbd.Batches(x, y, batch_size=100), epochs=1, compile=True, progress=False)
    assert not [warning for warning in recwarn if "not compiled" in str(warning.message)]
