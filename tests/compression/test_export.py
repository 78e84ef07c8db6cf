import logging
import signal
import subprocess
import sys

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from tests.compression.networks import Tied
from tests.compression.pruned import convnet, trained
from tests.compression.test_cut import ByHand


@pytest.fixture
def small(device):
    model, guide, _, _ = trained(device)
    return vbd.compress(model, guide, 1.0, batch_sizes=())[0]


def test_safetensors(small, tmp_path, device):
    safetensors = pytest.importorskip("safetensors.torch")
    path = tmp_path / "net.safetensors"
    assert vbd.save_safetensors(small, path) == path.stat().st_size
    plain = safetensors.load_file(path)
    assert {name: value.shape for name, value in plain.items()} == {n: v.shape for n, v in small.state_dict().items()}
    x = torch.randn(5, 8, 8)
    assert torch.equal(vbd.load_safetensors(path, convnet().to(device))(x), small(x))
    with pytest.raises(ValueError, match=r"is not of this|has no module"):
        vbd.load_safetensors(path, nn.Linear(3, 3))
    safetensors.save_file({"a": torch.zeros(1, device="cpu")}, path, {"pyro_vbd": "[]"})
    with pytest.raises(ValueError, match="is not of this"):
        vbd.load_safetensors(path, convnet())
    safetensors.save_file({"a": torch.zeros(1, device="cpu")}, path)
    with pytest.raises(ValueError, match="was not written by save_safetensors"):
        vbd.load_safetensors(path, convnet())
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(ValueError, match="no safetensors file, or damaged"):
        vbd.load_safetensors(path, convnet())


def test_safetensors_of_shared_and_of_transposed_weights(tmp_path):
    pytest.importorskip("safetensors")
    path, net = tmp_path / "net.safetensors", Tied(6, 6)
    net.middle.weight = nn.Parameter(net.middle.weight.detach().T)
    vbd.save_safetensors(net, path)
    torch.testing.assert_close(dict(vbd.load_safetensors(path, Tied(6, 6)).state_dict()), dict(net.state_dict()))


def test_safetensors_in_double_precision(tmp_path):
    pytest.importorskip("safetensors")
    net, x = ByHand().double(), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        net.conv.weight[1] = 0.0
    small = vbd.cut(net, x).network
    vbd.save_safetensors(small, tmp_path / "net")
    assert torch.equal(vbd.load_safetensors(tmp_path / "net", ByHand())(x), small(x))


def with_dropout():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Dropout(), nn.Linear(6, 3))


@pytest.mark.parametrize("make", [ByHand, with_dropout, None])
def test_onnx_is_what_torch_computes_for_any_batch(make, small, tmp_path):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    x = torch.randn(4, 1, 8, 8) if make else torch.randn(4, 8, 8)
    net = make() if make else small
    path = tmp_path / "net.onnx"
    level = logging.getLogger("torch.onnx").level
    assert vbd.save_onnx(net, path, x) == path.stat().st_size
    assert logging.getLogger("torch.onnx").level == level
    assert net.training or make is None
    session = runtime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    for batch in (x, torch.randn(9, *x.shape[1:])):
        (found,) = session.run(None, {session.get_inputs()[0].name: batch.cpu().numpy()})
        torch.testing.assert_close(torch.from_numpy(found), net.eval()(batch).detach().cpu(), rtol=1e-4, atol=1e-5)


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = vbd.HeadwiseAttention(8, 2, gated=False)

    def forward(self, x):
        return self.attention(x, x, x)[0]


def test_what_the_exporter_says_of_attention_is_not_passed_on(tmp_path, caplog):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert vbd.save_onnx(Attending(), tmp_path / "net.onnx", torch.randn(2, 5, 8))
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


class ManyOutputs(nn.Module):
    def forward(self, x):
        above = x > 0
        return x, above, above.long().sum(1), torch.where(above, x, -torch.inf), torch.where(above, torch.nan, x)


def test_onnx_of_outputs_that_are_no_finite_numbers(tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path, x = tmp_path / "net.onnx", torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])
    assert vbd.save_onnx(ManyOutputs(), path, x) == path.stat().st_size
    right = ManyOutputs()(x)
    for i, wrong in ((1, ~right[1]), (2, right[2] + 1), (3, x), (4, x)):
        outputs = (*right[:i], wrong, *right[i + 1 :])
        monkeypatch.setattr("pyro_vbd.compression.export.call_network", lambda net, x, outputs=outputs: outputs)
        with pytest.raises(RuntimeError, match=r"onnxruntime's outputs differ from torch's by (1|inf|nan)"):
            vbd.save_onnx(ManyOutputs(), path, x)


def test_an_onnx_file_that_computes_something_else_is_not_written(small, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "net.onnx"
    path.write_bytes(b"good")
    monkeypatch.setattr("pyro_vbd.compression.export.call_network", lambda net, x: net(x) + 0.1)
    with pytest.raises(RuntimeError, match=r"onnxruntime's outputs differ from torch's by 0.1"):
        vbd.save_onnx(small, path, torch.randn(4, 8, 8))
    with pytest.raises(ValueError, match="hold 1 data: pass two or more"):
        vbd.save_onnx(small, path, torch.randn(1, 8, 8))
    assert path.read_bytes() == b"good"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("package", "export"),
    [("safetensors", lambda net, path: vbd.save_safetensors(net, path)),
     ("onnxruntime", lambda net, path: vbd.save_onnx(net, path, torch.randn(2, 3)))],
)  # fmt: skip
def test_a_package_that_is_missing_is_named(package, export, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"needs {package}: pip install 'pyro-vbd\[export\]'"):
        export(nn.Linear(3, 3), tmp_path / "net")
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys
from pathlib import Path
from torch import nn
import pyro_vbd as vbd

whole = Path.write_bytes

def half(path, content):
    whole(path, content[: len(content) // 2])
    os.kill(os.getpid(), signal.SIGKILL)

Path.write_bytes = half
getattr(vbd, sys.argv[1])(nn.Linear(30, 30), sys.argv[2])
"""


@pytest.mark.parametrize("export", ["save_sparse", "save_safetensors"])
def test_an_export_that_is_killed_leaves_the_good_file(export, tmp_path):
    if export == "save_safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / "net"
    path.write_bytes(b"good")
    done = subprocess.run([sys.executable, "-c", KILLED, export, str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert path.read_bytes() == b"good"
