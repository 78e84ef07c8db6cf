import itertools

import pytest
import torch
from measures.selective import aurc, risk_coverage


def test_by_hand():
    loss = torch.tensor([0.0, 1.0, 0.0, 1.0])
    uncertainty = torch.tensor([0.1, 0.9, 0.4, 0.2])  # order: 0, 3, 2, 1
    expected = torch.tensor([0.0, 1 / 2, 1 / 3, 2 / 4], dtype=torch.float64)
    torch.testing.assert_close(risk_coverage(loss, uncertainty), expected)
    assert aurc(loss, uncertainty) == pytest.approx(float(expected.mean()))


def test_ties_are_the_expectation_over_their_orders():
    loss, uncertainty = torch.tensor([3.0, 1.0, 0.0, 5.0, 2.0]), torch.tensor([1.0, 0.0, 1.0, 1.0, 2.0])
    orders = [o for o in itertools.permutations(range(5)) if list(uncertainty[list(o)]) == sorted(uncertainty.tolist())]
    curves = [loss[list(o)].double().cumsum(0) / torch.arange(1, 6) for o in orders]
    torch.testing.assert_close(risk_coverage(loss, uncertainty), torch.stack(curves).mean(0))


def test_no_order_beats_the_oracle_and_a_blind_one_is_the_mean():
    loss = torch.rand(500)
    assert aurc(loss, loss) < aurc(loss, torch.randn(500)) < aurc(loss, -loss)
    assert aurc(loss, torch.zeros(500)) == pytest.approx(float(loss.double().mean()))


def test_the_whole_data_have_the_mean_risk():
    loss = torch.rand(50)
    assert float(risk_coverage(loss, torch.randn(50))[-1]) == pytest.approx(float(loss.double().mean()))
