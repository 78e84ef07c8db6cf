"""The same seed gives the same numbers: again, in another process, eager or compiled, and whatever else is asked for."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import pyro
import pytest
import torch

import pyro_vbd as vbd
from tests.digits import assert_equal, pair, values

PROGRAM = """
import hashlib, sys, torch, pyro_vbd as vbd
torch.set_num_threads(1)
torch.manual_seed(0)
net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), vbd.noise.Gate(16), torch.nn.Linear(16, 3))
x, y = torch.randn(90, 8), torch.randint(3, (90,))
priors = {"0.*": vbd.priors.RegularizedHorseshoe(), "*": vbd.priors.GaussianUniform()}
model = vbd.Classifier(net, priors, num_data=90)
guide = vbd.VBDGuide(model, scale_posterior="lognormal")
vbd.fit(model, guide, vbd.Batches(x, y, batch_size=20), epochs=3, progress=False, compile=sys.argv[1] == "compiled")
probs = vbd.predict(model, guide, x, num_samples=7).probs
content = [*guide.state_dict().values(), probs]
print(hashlib.sha256(b"".join(value.numpy().tobytes() for value in content)).hexdigest())
"""


def digest(how: str, hash_seed: int) -> str:
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], cwd=Path(__file__).parents[1], env=environment,
                          capture_output=True, text=True, check=True)  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("how", ["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def test_in_another_process(how):
    """Also where sets and dicts of objects come in another order."""
    assert digest(how, 1) == digest(how, 2)


@pytest.mark.usefixtures("traced")
def test_compiled(device):
    x, y = torch.randn(40, 64), torch.randint(10, (40,))
    starts = pair(40)
    ends = []
    for _ in range(2):
        model, guide = copy.deepcopy(starts)
        guide._model.model = model
        vbd.fit(model, guide, vbd.Batches(x, y, batch_size=16), epochs=2, seed=5, progress=False, compile=True)
        ends.append(values(model, guide))
    if device.type == "cpu":
        assert_equal(*ends)


def test_looking_at_a_run_does_not_change_it(device, tmp_path):
    """Neither do checkpoints, validation, monitors or a bar."""
    x, y = torch.randn(40, 64), torch.randint(10, (40,))
    starts = pair(40)
    looks = {
        "checkpoint": tmp_path / "run.ckpt",
        "validation": vbd.Batches(x, y, shuffle=False),
        "callbacks": [vbd.monitors.sparsity(), vbd.monitors.alpha_quantiles((0.5,)), vbd.monitors.kl_by_site(x, y)],
        "progress": True,
    }
    ends = []
    for options in ({"progress": False}, looks):
        model, guide = copy.deepcopy(starts)
        guide._model.model = model
        vbd.fit(model, guide, vbd.Batches(x, y, batch_size=16), epochs=3, seed=5, **options)
        ends.append(values(model, guide))
    if device.type == "cpu":
        assert_equal(*ends)


def test_predictions(device):
    model, guide = pair(40)
    x = torch.randn(30, 64)
    found = []
    for _ in range(2):
        pyro.set_rng_seed(3)
        found.append(vbd.predict(model, guide, x, num_samples=9).probs)
    assert torch.equal(*found)


@pytest.mark.slow
def test_ten_million_weights(device):
    """The KL is a sum: in single precision it keeps five digits of that in double."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(10_000, 1000), torch.nn.ReLU(), torch.nn.Linear(1000, 10))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=60_000)
    guide = vbd.VBDGuide(model)
    x, y = torch.randn(4, 10_000), torch.randint(10, (4,))
    run = vbd.fit(model, guide, [(x, y)], epochs=2, progress=False)
    assert all(bool(parameter.isfinite().all()) for parameter in guide.parameters())
    assert run.history[1]["loss"] < run.history[0]["loss"]
    kl = vbd.VBD_ELBO().terms(model, guide, x, y).kl.item()
    expected = sum(
        0.5 * torch.log1p(q.loc.double().square() / q.log_var.double().exp()).sum() for q in guide.posteriors.values()
    )
    assert kl == pytest.approx(expected.item(), rel=1e-5)
