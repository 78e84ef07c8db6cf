"""The parts of calibration.py: data, likelihoods, methods, and the marks in its tables."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from comparison.families import FAMILIES
from data import load
from measures import regression
from torch import nn
from torch.distributions import Normal
from training import Plan
from uncertainty.laplace import maximise_evidence, plain_network
from uncertainty.methods import DeepEnsemble, Deterministic, MCDropout
from uncertainty.problems import PROBLEMS, TABLES, Data, Problem, dense, images, standardised, table
from uncertainty.runs import BASELINES, METHODS, run
from uncertainty.tables import TEST_TO_TRAIN, advantage, losses, mark
from uncertainty.tables import table as printed_table
from uncertainty.tasks import Classification, GaussianLoss, Regression

from tests.paper.small_data import write_mnist


@pytest.mark.parametrize("name", TABLES)
def test_splits_are_disjoint_whole_and_standardised_by_the_training_data(name):
    problem = TABLES[name]
    data, again, other = problem.load(None, 0), problem.load(None, 0), problem.load(None, 1)
    rows = torch.cat([data.x, data.x_valid, data.x_test])
    assert len(rows) == len(torch.cat([data.y, data.y_valid, data.y_test]))
    assert torch.equal(data.x, again.x)
    assert not torch.equal(data.x, other.x)
    assert len(data.x_test) / len(rows) == pytest.approx(0.3, abs=0.01)
    assert len(data.x_test) / (len(data.x) + len(data.x_valid)) == pytest.approx(TEST_TO_TRAIN, abs=0.02)
    assert data.x.mean(0).abs().max() < 1e-4
    deviation = data.x.std(0, correction=0)
    assert ((deviation - 1).abs().lt(1e-3) | deviation.eq(0)).all()
    whole = data.refit()
    assert len(whole.x) == len(data.x) + len(data.x_valid)
    assert whole.x_test is data.x_test
    if isinstance(problem.task, Regression):
        assert float(data.y.mean()) == pytest.approx(0, abs=1e-4)
        assert float(data.y.std(correction=0)) == pytest.approx(1, abs=1e-4)


def test_each_row_goes_with_its_target_to_one_part():
    rows = np.arange(100.0)
    data = table(lambda: (rows[:, None], rows), Classification())(None, 0)
    parts = [(data.x, data.y), (data.x_valid, data.y_valid), (data.x_test, data.y_test)]
    assert [len(x) for x, _ in parts] == [56, 14, 30]
    x, y = (torch.cat(part) for part in zip(*parts, strict=True))
    assert y.sort().values.tolist() == list(range(100))
    assert torch.equal(x[:, 0].argsort(), y.argsort())


def test_images_are_held_out_by_the_seed_and_tested_on_the_test_set(tmp_path):
    pytest.importorskip("torchvision")
    write_mnist(tmp_path, train=60, test=30)
    first, second = (images("mnist")(tmp_path, seed) for seed in (0, 1))
    assert [len(part) for part in (first.x, first.x_valid, first.x_test)] == [50, 10, 30]
    assert torch.equal(first.x_test, load("mnist", tmp_path).x_eval)
    assert torch.equal(first.x_test, second.x_test)
    assert not torch.equal(first.x_valid, second.x_valid)


def test_standardised_uses_the_reference_alone():
    values = standardised(np.array([[1.0, 5.0], [3.0, 6.0]]), np.array([[0.0, 5.0], [2.0, 5.0]]))
    np.testing.assert_array_equal(values, [[0.0, 0.0], [2.0, 0.0]])


def test_gaussian_loss_is_the_negative_log_density():
    loss = GaussianLoss()
    with torch.no_grad():
        loss.log_scale.fill_(math.log(0.3))
    outputs, y = torch.randn(20, 1), torch.randn(20)
    torch.testing.assert_close(loss(outputs, y), -Normal(outputs[:, 0], 0.3).log_prob(y).mean())
    assert float(loss.noise) == pytest.approx(0.3)


def test_predictive_distributions_average_densities_over_members():
    logits = torch.randn(3, 5, 4)
    torch.testing.assert_close(Classification().predictive(logits, torch.zeros(3)), logits.softmax(-1).mean(0))
    found = Regression().predictive(torch.tensor([[[0.0]], [[2.0]]]), torch.tensor([1.0, 0.5]))
    truth = (Normal(0.0, 1.0).log_prob(torch.ones(1)).exp() + Normal(2.0, 0.5).log_prob(torch.ones(1)).exp()).log()
    torch.testing.assert_close(found.log_prob(torch.ones(1)).float(), truth - math.log(2))


def test_what_may_be_declined_first():
    """Of numbers the whole variance counts, that between the members too."""
    predictive = Regression().predictive(torch.tensor([[[0.0], [0.0]], [[0.0], [6.0]]]), torch.tensor([1.0, 2.0]))
    loss, uncertainty = Regression().selection(predictive, torch.tensor([1.0, 1.0]))
    assert loss.tolist() == [1.0, 4.0]
    assert uncertainty.tolist() == pytest.approx([2.5, 2.5 + 9.0])
    loss, uncertainty = Classification().selection(torch.tensor([[0.9, 0.1], [0.4, 0.6]]), torch.tensor([1, 1]))
    assert loss.tolist() == [1.0, 0.0]
    assert uncertainty.tolist() == pytest.approx([0.1, 0.4])


def line(count=200, noise=0.4):
    """A linear problem whose noise is known."""
    x = torch.randn(count, 2)
    y = x @ torch.tensor([0.7, -0.5]) + noise * torch.randn(count)
    return Problem(Regression(), lambda folder, seed: None, dense(16), Plan(60, 32, 1e-2)), x, y


def test_no_baseline_has_the_name_of_a_prior():
    assert len(METHODS) == len(BASELINES) + len(FAMILIES) - 1  # all but the likelihood alone


def middle(method):
    """A setting that is not extreme; of Laplace the evidence."""
    return {**method.grid[len(method.grid) // 2], "precision": 0.0}


@pytest.mark.parametrize("name", ["vbd", "gaussian", *BASELINES])
def test_methods_find_a_line_and_its_noise(name):
    problem, x, y = line()
    method = METHODS[name]
    predictive = method.fit(problem, x, y, 0, middle(method))(x)
    found = regression.scores(predictive, y)
    assert found["error"] < 0.5
    assert abs(found["coverage"] - 90) < 8
    assert 0.25 < float(predictive.component_distribution.stddev.min()) < 0.55


@pytest.mark.parametrize("name", ["vbd", *BASELINES])
def test_methods_give_class_probabilities(name):
    problem = replace(TABLES["iris"], plan=Plan(60, 32, 1e-2))
    data = problem.load(None, 0)
    method = METHODS[name]
    probs = method.fit(problem, data.x, data.y, 0, middle(method))(data.x_test)
    assert probs.shape == (len(data.x_test), 3)
    torch.testing.assert_close(probs.sum(-1), torch.ones(len(probs)))
    assert (probs.argmax(-1) == data.y_test).float().mean() > 0.85


def test_precisions_of_laplace_share_a_network_and_a_higher_one_is_surer():
    problem, x, y = line(60)
    spread = []
    for precision in (0.1, 1.0, 1000.0):
        predict = METHODS["laplace-last-layer"].fit(
            problem, x, y, 0, {"weight_decay": 0.1, "length": 1.0, "precision": precision}
        )
        spread.append(predict(x).component_distribution.stddev.mean().item())
    assert spread == sorted(spread, reverse=True)
    assert spread[0] > spread[-1]
    assert plain_network.cache_info().hits >= 2


def test_an_ensemble_has_five_members_and_dropout_stays_on():
    problem, x, y = line()
    members = DeepEnsemble().fit(problem, x, y, 0, Deterministic.grid[0])(x).component_distribution
    assert members.mean.shape == (200, 5)
    assert members.mean.std(-1).min() > 1e-4
    assert len(members.stddev[0].unique()) == 5
    dropped = MCDropout().fit(problem, x, y, 0, {"dropout": 0.5})(x).component_distribution
    assert dropped.mean.std(-1).mean() > 0.02


@pytest.mark.parametrize("method", [Deterministic(), DeepEnsemble(), MCDropout()])
def test_a_setting_reaches_the_training_and_no_two_members_share_a_seed(monkeypatch, method):
    asked = []

    def train_plain(net, loss, x, y, plan, weight_decay):
        rates = [module.p for module in net if isinstance(module, nn.Dropout)]
        asked.append((torch.initial_seed(), plan.epochs, weight_decay, rates))

    monkeypatch.setattr("uncertainty.methods.train_plain", train_plain)
    problem, x, y = line(10)
    drops = isinstance(method, MCDropout)
    setting = {"length": 0.25, "dropout": 0.2} if drops else {"length": 0.25, "weight_decay": 0.3}
    for seed in range(3):
        method.fit(problem, x, y, seed, setting)
    assert len({seed for seed, *_ in asked}) == len(asked) == (15 if isinstance(method, DeepEnsemble) else 3)
    assert all(found == ([15, 0.0, [0.2]] if drops else [15, 0.3, []]) for _, *found in asked)


def test_the_evidence_of_laplace_is_at_its_maximum():
    """Where the gradient of laplace-torch is wrong: values around the optimum are lower."""
    laplace = pytest.importorskip("laplace")
    _, x, y = line()
    net = nn.Sequential(nn.Linear(2, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.linalg.lstsq(x, y[:, None]).solution.T)
        net[0].bias.zero_()
    fitted = laplace.Laplace(net, "regression", subset_of_weights="all", hessian_structure="kron", sigma_noise=1.0)
    fitted.fit(torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y[:, None]), batch_size=100))
    maximise_evidence(fitted, ["sigma_noise"])
    best = [fitted.prior_precision.detach().clone(), fitted.sigma_noise.detach().clone()]
    residual = float((y - net(x)[:, 0]).detach().square().mean().sqrt())
    assert float(best[1]) == pytest.approx(residual, rel=0.03)
    top = float(fitted.log_marginal_likelihood(*best))
    for precision, noise in ((1.3, 1.0), (0.7, 1.0), (1.0, 1.1), (1.0, 0.9)):
        assert float(fitted.log_marginal_likelihood(best[0] * precision, best[1] * noise)) < top


def test_the_setting_with_the_best_validation_likelihood_is_chosen(monkeypatch):
    class Chooses(Deterministic):
        grid = tuple({"weight_decay": 0.0, "length": 1.0, "offset": value} for value in (3.0, 0.0, -3.0))

        def fit(self, problem, x, y, seed, setting):
            seen.append((len(x), setting["offset"]))
            centre = lambda inputs: torch.full((1, len(inputs), 1), setting["offset"])  # noqa: E731
            return lambda inputs: problem.task.predictive(centre(inputs), torch.ones(()))

    seen = []
    monkeypatch.setitem(METHODS, "chooses", Chooses())
    found = run("diabetes", "chooses", 0, None, None, torch.device("cpu"), 0)
    assert found["setting"]["offset"] == 0.0
    data = PROBLEMS["diabetes"].load(None, 0)
    assert seen == [(len(data.x), 3.0), (len(data.x), 0.0), (len(data.x), -3.0), (len(data.x) + len(data.x_valid), 0.0)]
    assert found["error"] == pytest.approx(float(data.y_test.square().mean().sqrt()))
    assert len(found["risk"]) == 50
    assert found["risk"][-1] == pytest.approx(found["error"] ** 2)


def test_neither_the_test_set_nor_the_error_chooses(monkeypatch):
    """Around 0 the error on validation data is the least, but with a noise that makes their likelihood poor."""

    class Tuned(Deterministic):
        def fit(self, problem, x, y, seed, setting):
            centre = lambda inputs: torch.full((1, len(inputs), 1), setting["offset"])  # noqa: E731
            return lambda inputs: problem.task.predictive(centre(inputs), torch.tensor(setting["noise"]))

    class Chooses(Tuned):
        grid = ({"offset": 9.0, "noise": 1.0}, {"offset": 0.0, "noise": 0.01}, {"offset": 0.5, "noise": 1.0})
        tuned_as = Tuned()

        def fit(self, *arguments):
            chosen.append(arguments[-1])
            return super().fit(*arguments)

    chosen = []
    x = torch.randn(20, 1)
    data = Data(x, torch.zeros(20), x, torch.randn(20), x, torch.full((20,), 9.0))
    monkeypatch.setitem(PROBLEMS, "toy", Problem(Regression(), lambda folder, seed: data, dense(), Plan(1, 10, 1e-2)))
    monkeypatch.setitem(METHODS, "chooses", Chooses())
    found = run("toy", "chooses", 0, None, None, torch.device("cpu"), 0)
    assert found["setting"] == Chooses.grid[2]
    assert chosen == [Chooses.grid[2]]  # a cheaper method has been tuned


COLUMNS = ("error", "nll", "calibration", "aurc", "coverage", "width", "overconfidence", "seconds")


def runs(*values):
    """Runs whose every number is the same."""
    return [dict.fromkeys(COLUMNS, value) for value in values]


def test_marks_follow_the_corrected_interval_of_the_difference():
    ours = runs(1.0, 1.2, 1.1)
    mean, width = advantage(ours, runs(0.9, 1.0, 0.8), "nll")
    assert mean == pytest.approx(0.2)
    assert width == pytest.approx(4.302653 * 0.1 * math.sqrt(1 / 3 + 3 / 7), rel=1e-4)
    assert mark(ours, runs(0.9, 1.0, 0.8), "nll") == "'"
    assert mark(ours, runs(0.5, 0.7, 0.6), "nll") == "*"
    assert mark(ours, runs(1.5, 1.7, 1.6), "nll") == ""
    assert mark(ours, runs(0.5, 0.7, 0.6), "width") == ""
    assert mark(runs(1.0), runs(0.1), "nll") == "'"


def test_losses_are_listed():
    ours = runs(1.0, 1.2, 1.1)
    results = {
        "diabetes": {"vbd": ours, "other": runs(0.5, 0.7, 0.6), "third": runs(0.9, 1.0, 0.8)},
        "friedman1": {"vbd": ours, "other": runs(2.0, 2.1, 2.2)},
        "friedman2": {"vbd": ours, "other": runs(0.9, 1.0, 0.8)},  # better, but not beyond doubt
    }
    lines = losses(results, "vbd").splitlines()
    assert lines[1].split(None, 1) == ["nll", "best on 1 of 3; loses on diabetes (other)"]
    printed = printed_table("diabetes", results["diabetes"], "vbd")
    assert "0.600 +- 0.100*" in printed
    assert "1.100 +- 0.100 " in printed
