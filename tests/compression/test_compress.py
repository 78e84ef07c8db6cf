"""The whole way: a posterior, a smaller network, a report; and what is refused."""

import copy
import importlib

import pyro
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import models
import pyro_vbd as vbd
from tests.compression.networks import Block, Concatenated, Excited, LastToken, Written, convolutional, dense, tokens
from tests.compression.pruned import error, trained
from tests.digits import pair


def test_computes_what_the_posterior_said(device, tmp_path):
    model, guide, _, validation = trained(device)
    small, report = vbd.compress(model, guide, 1.0, batch_sizes=())
    masked = vbd.point_network(model, guide, 1.0)
    x = next(iter(validation))[0]
    torch.testing.assert_close(small(x), masked(x), rtol=1e-4, atol=1e-4)
    assert error(small, validation) < 0.1
    kept = [mask for mask in vbd.masks(guide, 1.0).values() if mask.dim() > 1]  # not gates
    left = sum(float(mask.sum()) for mask in kept)
    assert report.mask_ratio == pytest.approx(sum(mask.numel() for mask in kept) / left)
    assert report.ratio > 4
    assert report.difference < 1e-5
    assert report.bytes_left < 0.8 * report.bytes
    assert report.sparse_bytes == vbd.save_sparse(small, tmp_path / "net")
    assert report.sparse_bytes_8 == vbd.save_sparse(small, tmp_path / "net", bits=8)
    assert sum(p.numel() for p in small.parameters()) < 0.8 * sum(p.numel() for p in masked.parameters())


def test_is_timed_against_the_network_without_gates(device, monkeypatch):
    model, guide, _, validation = trained(device)
    timed = []
    module = importlib.import_module("pyro_vbd.compression.compress")  # as an attribute it is the function
    monkeypatch.setattr(module, "latencies", lambda before, *_: timed.append(before) or [])
    vbd.compress(model, guide, 1.0)
    whole, x = vbd.point_network(model, guide), next(iter(validation))[0]
    torch.testing.assert_close(timed[0](x), whole(x), rtol=1e-4, atol=1e-4)
    assert any(isinstance(module, vbd.Gate) for module in whole.modules())
    assert not any(isinstance(module, vbd.Gate) for module in timed[0].modules())


def test_leaves_model_guide_and_random_state(device):
    model, guide, _, _ = trained(device)
    state = copy.deepcopy((model.state_dict(), guide.state_dict(), torch.get_rng_state()))
    vbd.compress(model, guide, batch_sizes=())
    for before, after in zip(state[:2], (model.state_dict(), guide.state_dict()), strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(state[2], torch.get_rng_state())


def test_masks_of_ones_own_and_whole_units(device):
    model, guide, _, _ = trained(device)
    kept = {"5.weight": torch.ones(30, 72)}
    kept["5.weight"][7:] = 0.0
    _, report = vbd.compress(model, guide, kept=kept, batch_sizes=())
    assert {row.name: row.units_left for row in report.layers}["5"] == 7
    _, by_unit = vbd.compress(model, guide, 0.0, -1.0, per="unit", batch_sizes=(), allow_dead=True)
    rows = vbd.masks(guide, 0.0, -1.0, per="unit")["5.weight"]
    assert torch.equal(rows, rows[:, :1].expand_as(rows))
    assert by_unit.difference < 1e-4


def test_what_the_papers_unit_priors_remove():
    """A row whose weights all have a large log alpha is a unit that goes."""
    model, guide = pair(20)
    q = guide.posteriors["q/0/weight"]
    with torch.no_grad():
        q.log_var.fill_(-10.0)
        q.log_var[:40] = 5.0
    _, report = vbd.compress(model, guide, inputs=torch.randn(2, 64), batch_sizes=())
    assert (report.layers[0].units, report.layers[0].units_left) == (50, 10)


def test_units_die_under_a_prior_that_they_share():
    """Two classes that one direction tells apart: of 30 units whose weights share a scale each, few live."""
    pyro.set_rng_seed(0)
    x = torch.randn(400, 4)
    net = nn.Sequential(nn.Linear(4, 30), nn.ReLU(), nn.Linear(30, 2))
    priors = {"0.weight": vbd.priors.GaussianUniform(per="output"), "2.weight": vbd.priors.GaussianUniform(per="input")}
    model = vbd.Classifier(net, priors, len(x))
    guide = vbd.VBDGuide(model, init_log_var=-6.0)
    batches = vbd.Batches(x, (x[:, 0] > 0).long(), batch_size=100)
    ramp = vbd.schedules.kl_ramp(5, 20)
    vbd.fit(model, guide, batches, epochs=60, lr=0.03, kl_schedule=ramp, progress=False)
    small, report = vbd.compress(model, guide, 0.0, per="unit", batch_sizes=())
    assert report.layers[0].units_left <= 15
    assert error(small, batches) < 0.05


# --- any network ---------------------------------------------------------------------------------------------------------


def goes_the_whole_way(net, x, folder, *, onnx):
    """From fit to each file and back, without a line for this network; what comes back computes what was cut."""
    fresh = copy.deepcopy(net)
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=len(x))
    guide = vbd.VBDGuide(model)
    y = torch.randint(4, (len(x),))
    vbd.fit(model, guide, vbd.Batches(x, y, batch_size=len(x)), epochs=2, progress=False)
    kept = {site: (torch.rand_like(mask) > 0.5).to(mask) for site, mask in vbd.masks(guide).items()}
    small, report = vbd.compress(model.eval(), guide, kept=kept, inputs=x, allow_dead=True, batch_sizes=())
    assert report.difference < 1e-5
    assert report.nonzero < report.weights
    expected = small(x)
    vbd.save_sparse(small, folder / "sparse")
    assert torch.equal(vbd.load_sparse(folder / "sparse", fresh).eval()(x), expected)
    vbd.save_safetensors(small, folder / "safetensors")
    assert torch.equal(vbd.load_safetensors(folder / "safetensors", fresh).eval()(x), expected)
    if onnx:
        vbd.save_onnx(small, folder / "onnx", x)  # it compares


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data(), st.integers(0, 1000))
def test_random_networks_go_the_whole_way(tmp_path_factory, data, seed):
    pytest.importorskip("safetensors")
    torch.manual_seed(seed)
    with torch.device("cpu"):
        rows = dense(7).map(lambda net: (net, torch.randn(3, 7)))
        net, x = data.draw(st.one_of(rows, convolutional(1), convolutional(2), tokens()))
        goes_the_whole_way(net, x, tmp_path_factory.mktemp("files"), onnx=False)


NETWORKS = {
    "residual": (lambda: models.resnet(width=4, classes=4), (3, 16, 16)),
    "gated": (lambda: vbd.add_gates(models.mlp(12, (9, 8), 4)), (12,)),
    "concatenated, excited": (
        lambda: nn.Sequential(
            Concatenated(nn.Conv2d(1, 3, 3), nn.Conv2d(1, 5, 3)), nn.BatchNorm2d(8), nn.ReLU(), Excited(8, 2),
            nn.MaxPool2d(2), Written(72), nn.Linear(72, 4),
        ), (1, 8, 8),
    ),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1, bias=False), nn.BatchNorm2d(6), nn.ReLU6(),
            nn.Conv2d(6, 6, 3, 1, 1, groups=6, bias=False), nn.BatchNorm2d(6), nn.ReLU6(),
            nn.Conv2d(6, 9, 1, bias=False), nn.BatchNorm2d(9), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(9, 4),
        ), (3, 12, 12),
    ),
    "torch's encoder": (
        lambda: nn.Sequential(
            nn.Linear(5, 8),
            nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 12, 0.1, batch_first=True), 2),
            LastToken(), nn.Linear(8, 4),
        ), (5, 5),
    ),
    "attention": (lambda: nn.Sequential(Block(8, 2, True), Block(8, 2, False), nn.Flatten(), nn.Linear(40, 4)), (5, 8)),
}  # fmt: skip


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_each_kind_go_the_whole_way(name, tmp_path, device):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    pytest.importorskip("safetensors")
    make, shape = NETWORKS[name]
    goes_the_whole_way(make(), torch.randn(6, *shape), tmp_path, onnx=True)


def test_lifted_networks_and_modes():
    lifted = vbd.lift(nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), vbd.priors.GaussianUniform(), name="body")
    guide = vbd.VBDGuide(lifted)
    small, _ = vbd.compress(lifted.eval(), guide, inputs=torch.randn(3, 4), batch_sizes=())
    assert not small.training


def test_what_cannot_be_done_is_named(device):
    model, guide, _, _ = trained(device)
    with pytest.raises(ValueError, match=r"layer '1' would die whole|layer '7' would die whole"):
        vbd.compress(model, guide, -1e9)
    small, _ = vbd.compress(model, guide, -1e9, -1e9, allow_dead=True, batch_sizes=())
    x = torch.randn(3, 8, 8)
    torch.testing.assert_close(small(x), small(x[:1]).expand(3, -1))
    with pytest.raises(ValueError, match=r"a mask for 'other.weight', but the weights are .* it is of another network"):
        vbd.compress(model, guide, kept={"other.weight": torch.ones(3)})
    with pytest.raises(ValueError, match=r"'7.weight' has shape \(3,\), the weight \(10, 30\)"):
        vbd.compress(model, guide, kept={"7.weight": torch.ones(3)})
    with pytest.raises(ValueError, match=r"mask of '7.weight' holds other numbers than 0 and 1"):
        vbd.compress(model, guide, kept={"7.weight": torch.full((10, 30), 0.5)})
    with pytest.raises(TypeError, match="holds no network"):
        vbd.compress(lambda x: x, guide)
    fresh, its_guide = pair(20)
    with pytest.raises(ValueError, match=r"has not run yet.*inputs="):
        vbd.compress(fresh, its_guide)


# --- what is passed on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("half_of_the_gates", "per"), [(True, "weight"), (False, "unit")])
def test_thresholds_of_gates_and_whole_units(device, half_of_the_gates, per):
    model, guide, _, validation = trained(device)
    of_gates = torch.cat([value for value in guide.log_alpha().values() if value.dim() == 1])
    gates = float(of_gates.median()) if half_of_the_gates else 0.0
    kept, plain = vbd.masks(guide, 0.0, gates, per=per), vbd.masks(guide, 0.0)
    assert any(not torch.equal(mask, plain[site]) for site, mask in kept.items())
    small, _ = vbd.compress(model, guide, 0.0, gates, per=per, batch_sizes=(), allow_dead=True)
    expected, x = vbd.point_network(model, guide, kept=kept), next(iter(validation))[0]
    torch.testing.assert_close(small(x), expected(x), rtol=1e-4, atol=1e-4)


def test_a_network_without_gates_is_timed_whole(monkeypatch):
    model, guide = pair(20)
    with torch.no_grad():
        guide.posteriors["q/0/weight"].loc[:40] = 0.0
    timed = []
    module = importlib.import_module("pyro_vbd.compression.compress")
    monkeypatch.setattr(module, "latencies", lambda before, after, *_: timed.extend([before, after]) or [])
    vbd.compress(model, guide, 1e9, inputs=torch.randn(2, 64))
    assert [net[0].out_features for net in timed] == [50, 10]


def test_a_gated_network_with_a_module_to_keep():
    class Branching(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    net = nn.Sequential(nn.Linear(4, 6), vbd.Gate(6), Branching(), nn.Linear(6, 2))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 10)
    small, _ = vbd.compress(model, vbd.VBDGuide(model), 1e9, inputs=torch.randn(2, 4), keep=["2"], batch_sizes=())
    assert isinstance(small[2], Branching)


def test_without_bayesian_weights_the_ratio_is_one():
    net = nn.Sequential(nn.Linear(4, 6), vbd.Gate(6), nn.Linear(6, 2))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 10, where=vbd.Gate)
    _, report = vbd.compress(model, vbd.VBDGuide(model), inputs=torch.randn(2, 4), batch_sizes=())
    assert report.mask_ratio == 1.0
