"""What the benchmarks measure: memory by count of tensors, and the objective of those who should have the same one."""

import pytest
import torch

from examples.benchmarks import peers  # noqa: F401  (they register themselves)
from examples.benchmarks.contenders import CONTENDERS, PLAIN, Contender, HandWritten, Unfit
from examples.benchmarks.problems import dense, problem
from examples.benchmarks.timing import add_memory, first_steps, interleaved, peak_memory


@pytest.fixture
def small(device):
    return problem(dense(50, 1), 20, device)


def test_a_missing_package_is_named(small):
    with pytest.raises(Unfit, match=r"no_such_package is not installed.*bench"):
        Contender("x", lambda problem: lambda: None, "no_such_package").step(small)


def test_a_package_that_does_not_work_here_is_left_out_with_a_reason(small, monkeypatch):
    def broken(problem):
        raise ImportError("cannot import name 'y'")

    monkeypatch.setitem(CONTENDERS, "broken", Contender("broken", broken, None))
    said = []
    steps, seconds = first_steps(small, ["broken", PLAIN], said.append)
    assert said == ["broken is left out: ImportError: cannot import name 'y'"]
    assert list(steps) == list(seconds) == [PLAIN]


def test_every_contender_has_its_turns(device):
    calls = []
    found = interleaved({name: lambda name=name: calls.append(name) for name in "ab"}, 3, 2, device, warmup=1)
    assert calls == ["a", "a", "b", "b"] * 4
    assert set(found) == {"a", "b"}


@pytest.mark.filterwarnings("ignore::UserWarning")  # of the profiler, where there is no CUDA
def test_memory_of_the_plain_network_is_that_of_its_tensors(small):
    parameters = sum(value.numel() for value in small.net().parameters()) * 4
    # a value, a gradient and two moments each; beyond them a batch of activations
    assert 4 * parameters <= peak_memory(small, PLAIN) <= 4 * parameters + 20 * (784 + 8 * 60) * 4 + 20_000


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_memory_that_torch_does_not_know_is_left_out(small, monkeypatch):
    monkeypatch.setitem(CONTENDERS, "theirs", Contender("theirs", lambda problem: lambda: None, "numpyro"))
    found, said = {PLAIN: {"seconds": 1.0}, "theirs": {"seconds": 2.0}}, []
    add_memory(small, found, said.append)
    assert found["theirs"] == {"seconds": 2.0}
    assert found[PLAIN]["bytes"] == pytest.approx(peak_memory(small, PLAIN), rel=0.01)
    assert said == ["the memory of theirs is not known: its arrays are not torch's"]


def test_hand_written_layers_have_our_kl():
    layer = HandWritten(torch.nn.Linear(4, 3))
    alpha = layer.log_var.exp() / layer.loc.square()
    assert torch.allclose(layer.kl(), 0.5 * torch.log1p(1 / alpha).sum())
