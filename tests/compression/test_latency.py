from itertools import cycle

import pytest
import torch
from torch import nn

from pyro_vbd.compression import latencies
from pyro_vbd.compression.latency import milliseconds


@pytest.mark.parametrize(("seconds", "text"), [(0.00012345, "0.123"), (0.24351, "244"), (1.2345, "1230"), (3.0, "3000")])
def test_milliseconds_in_three_digits(seconds, text):
    assert milliseconds(seconds) == text


class Clock:
    """Time that passes where a network says so."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now


class Waiting(nn.Module):
    def __init__(self, clock, seen, *seconds):
        super().__init__()
        self.clock, self.seen, self.seconds = clock, seen, cycle(seconds)

    def forward(self, x):
        self.seen.append((self, len(x), self.training))
        self.clock.now += next(self.seconds)
        return x


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("pyro_vbd.compression.latency.time", clock)
    return clock


def test_in_turns_and_in_evaluation_mode(clock, monkeypatch):
    """The first pass, in which things are done once, is not counted, and one that is disturbed counts little."""
    monkeypatch.setattr("pyro_vbd.compression.latency._SECONDS", 0.0)
    seen = []
    first, second = Waiting(clock, seen, 9.0, 0.01, 0.01, 0.7, 0.01, 0.01), Waiting(clock, seen, 0.002)
    one, many = latencies(first, second, torch.randn(2, 3), (1, 5))
    assert [(row.batch_size, row.turns) for row in (one, many)] == [(1, 5), (5, 5)]
    assert [net for net, _, _ in seen] == [first, second] * 12
    assert {(size, training) for _, size, training in seen} == {(1, False), (5, False)}
    assert (one.before, one.after, one.speedup) == pytest.approx((0.01, 0.002, 5.0))
    assert first.training


@pytest.mark.parametrize(("most", "turns"), [(7, 7), (200, 84)])
def test_turns_end_with_the_time_or_their_number(clock, monkeypatch, most, turns):
    monkeypatch.setattr("pyro_vbd.compression.latency._SECONDS", 1.0)
    monkeypatch.setattr("pyro_vbd.compression.latency._MOST", most)
    (row,) = latencies(Waiting(clock, [], 0.01), Waiting(clock, [], 0.002), torch.randn(2, 3), (1,))
    assert row.turns == turns
