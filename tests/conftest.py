"""Fixtures for all tests: the device, a fixed seed, and Pyro's global state as new."""

from contextlib import nullcontext

import pyro
import pytest
import torch
from hypothesis import settings

from pyro_vbd.priors import evidence, optimum

#: By default the same few hundred cases each time; ``--hypothesis-profile=long`` tries ten thousand new ones.
settings.register_profile("short", max_examples=200, deadline=None, derandomize=True, database=None)
settings.register_profile("long", max_examples=10_000, deadline=None, print_blob=True)
settings.load_profile("short")


def pytest_configure(config: pytest.Config) -> None:
    torch.backends.cudnn.allow_tf32 = False  # ten bits of an input are too few for these comparisons
    torch.set_num_threads(1)  # steps of small networks: threads that wait for each other take longer than the work


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="device of every test with tensors: cpu or cuda")


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    chosen = torch.device(request.config.getoption("--device"))
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise pytest.UsageError("--device cuda, but torch sees no CUDA device")
    return chosen


@pytest.fixture(autouse=True)
def _fresh_pyro(device: torch.device):
    """Seed 0 and an empty parameter store for every test, tensors on the device, and settings as they were after it."""
    kept = pyro.settings.get()
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    with torch.device(device) if device.type != "cpu" else nullcontext():  # it would be called at every operation
        yield
    pyro.settings.set(**kept)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch):
    """Compiled steps run as traced graphs: what Inductor does to them takes seconds for each."""
    monkeypatch.setattr("pyro_vbd.compiling.compiled_step.machine_code", lambda graph, *_: graph)


@pytest.fixture
def float64():
    """Double precision as the default, for comparisons to 1e-8."""
    kept = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(kept)


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch):
    """What a test registers for priors is forgotten after it."""
    for module, registry in ((optimum, "_OPTIMA"), (evidence, "_EVIDENCE")):
        monkeypatch.setattr(module, registry, dict(getattr(module, registry)))
