import math

import pytest
import sklearn.metrics
import torch
from measures.classification import auroc, brier, overconfidence, reliability, scores


def sample(count=300, classes=4):
    probs = torch.randn(count, classes, dtype=torch.float64).mul(2).softmax(-1)
    return probs, torch.randint(classes, (count,))


def test_scores_by_hand():
    probs = torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.1, 0.9]])
    found = scores(probs, torch.tensor([0, 1, 1]))
    assert found["error"] == pytest.approx(100 / 3)
    assert found["nll"] == pytest.approx(-(math.log(0.7) + math.log(0.4) + math.log(0.9)) / 3)
    assert found["brier"] == pytest.approx((2 * 0.3**2 + 2 * 0.6**2 + 2 * 0.1**2) / 3)
    assert found["overconfidence"] == pytest.approx(100 * (2.2 / 3 - 2 / 3), abs=1e-4)
    # 15 bins: every datum is alone in its bin
    assert found["calibration"] == pytest.approx(100 * (0.3 + 0.6 + 0.1) / 3, abs=1e-4)


def test_the_calibration_error_has_fifteen_bins():
    """In ten these two share a bin, in which their errors cancel."""
    probs = torch.tensor([[0.64, 0.36], [0.68, 0.32]])
    assert scores(probs, torch.tensor([0, 1]))["calibration"] == pytest.approx(100 * (0.36 + 0.68) / 2, abs=1e-4)


def test_brier_is_the_sum_over_classes_of_the_binary_ones():
    probs, y = sample()
    truth = sum(sklearn.metrics.brier_score_loss((y == c).cpu(), probs[:, c].cpu()) for c in range(4))
    assert brier(probs, y) == pytest.approx(truth)


def test_a_certain_and_wrong_prediction_has_a_finite_likelihood():
    assert scores(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))["nll"] == pytest.approx(-math.log(1e-12), rel=1e-4)


@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e6])
def test_auroc_is_that_of_the_ranks_whatever_the_scale(factor):
    known, strange = torch.randn(200, dtype=torch.float64), torch.randn(150, dtype=torch.float64) + 1
    strange[:20] = known[:20]  # ties
    target = [0] * 200 + [1] * 150
    truth = sklearn.metrics.roc_auc_score(target, torch.cat([known, strange]).cpu())
    assert auroc(known * factor, strange * factor) == pytest.approx(truth)
    assert 0.6 < truth < 0.9


def test_a_constant_uncertainty_tells_nothing():
    assert auroc(torch.zeros(30), torch.zeros(20)) == pytest.approx(0.5)


def test_overconfidence_has_the_sign_of_too_sure():
    y = torch.tensor([0, 1])
    assert overconfidence(torch.tensor([[0.9, 0.1], [0.9, 0.1]]), y) == pytest.approx(0.4)
    assert overconfidence(torch.tensor([[0.6, 0.4], [0.4, 0.6]]), y) == pytest.approx(-0.4)


def test_reliability_of_calibrated_probabilities_lies_on_the_diagonal():
    probs = torch.rand(200_000, dtype=torch.float64).mul(0.5).add(0.5)
    y = (torch.rand_like(probs) > probs).long()
    confidence, accuracy = reliability(torch.stack([probs, 1 - probs], -1), y, bins=10)
    assert confidence == sorted(confidence)
    worst = max(abs(c - a) / math.sqrt(c * (1 - c) / 20_000) for c, a in zip(confidence, accuracy, strict=True))
    assert worst < 4


@pytest.mark.parametrize("count", [45, 100, 101])
def test_reliability_has_as_many_bins_whatever_the_number_of_data(count):
    probs, y = sample(count)
    assert [len(values) for values in reliability(probs, y, bins=10)] == [10, 10]
