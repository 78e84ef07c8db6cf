"""Memory that does not grow: with the steps of a run, with runs in one process, with the data that are predicted."""

import gc
import json
import subprocess
import sys
import warnings
from pathlib import Path

import pyro
import pytest
import torch

import pyro_vbd as vbd
from tests.digits import pair
from tests.memory_runs import data

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("what", "count", "how", "allowed"),
    [
        ("run", 400, "eager", 4),
        ("run", 400, "traced", 4),
        ("runs", 20, "eager", 4),
        ("runs", 12, "traced", 4),
        ("prediction", 20_000, "eager", 4),
        pytest.param("run", 10_000, "eager", 4, marks=slow),
        pytest.param("run", 10_000, "compiled", 4, marks=slow),
        pytest.param("runs", 1000, "eager", 8, marks=slow),
        pytest.param("runs", 300, "traced", 8, marks=slow),
        pytest.param("prediction", 1_000_000, "eager", 8, marks=slow),
    ],
)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell how much a process holds")
def test_it_stays_flat(what, count, how, allowed, device):
    command = [sys.executable, "-m", "tests.memory_runs", what, str(count), how, str(device)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    before, after = json.loads(done.stdout)
    print(f"{what}, {count}, {how}: {before:.1f} MB, in the end {after:.1f} MB")
    assert after - before < allowed


def test_a_run_leaves_no_tensor_behind():
    """Of a run that is over, and of one that failed, nothing is left but what the user holds."""
    x, y = data(60)

    def tensors() -> int:
        gc.collect()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of objects that are deprecated, and look so when they are looked at
            return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    def attempt(x: torch.Tensor) -> None:
        model, guide = pair(60)
        with pyro.validation_enabled(False):
            vbd.fit(model, guide, [(x, y)], epochs=1, progress=False)

    attempt(x)
    before = tensors()
    for _ in range(3):
        attempt(x)
        with pytest.raises(FloatingPointError):
            attempt(torch.full_like(x, torch.inf))
    assert tensors() <= before
