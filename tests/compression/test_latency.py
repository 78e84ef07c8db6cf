import time

import pytest
import torch
from torch import nn

from pyro_vbd.compression import latencies
from pyro_vbd.compression.latency import milliseconds


@pytest.mark.parametrize(("seconds", "text"), [(0.00012345, "0.123"), (0.24351, "244"), (1.2345, "1230"), (3.0, "3000")])
def test_milliseconds_in_three_digits(seconds, text):
    assert milliseconds(seconds) == text


class Waiting(nn.Module):
    def __init__(self, seconds, seen):
        super().__init__()
        self.seconds, self.seen = seconds, seen

    def forward(self, x):
        self.seen.append((self.seconds, len(x), self.training))
        time.sleep(self.seconds)
        return x


def test_in_turns_and_in_evaluation_mode(monkeypatch):
    monkeypatch.setattr("pyro_vbd.compression.latency._SECONDS", 0.0)
    seen = []
    first, second = Waiting(0.01, seen), Waiting(0.002, seen)
    one, many = latencies(first, second, torch.randn(2, 3), (1, 5))
    assert [(row.batch_size, row.turns) for row in (one, many)] == [(1, 5), (5, 5)]
    assert [seconds for seconds, _, _ in seen] == [0.01, 0.002] * 12
    assert {(size, training) for _, size, training in seen} == {(1, False), (5, False)}
    assert one.before == pytest.approx(0.01, rel=0.5)
    assert 1.5 < one.speedup < 6
    assert first.training
