"""What compare_priors.py asks of a trained network: its bound, and what it costs to remove weights."""

from types import SimpleNamespace

import pytest
import torch
from comparison import runs, tables
from comparison.removal import SHARES, error, removal_curve
from comparison.trained import bound
from compressing.stages import two_rates
from data import Split
from torch import nn

import pyro_vbd as vbd


def split(count=60):
    x = torch.randn(count, 5)
    return Split(x, x[:, :3].argmax(1), x, x[:, :3].argmax(1))


def test_the_least_relevant_weights_go_first_and_come_back():
    data, net = split(), nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))
    before = {name: value.clone() for name, value in net.state_dict().items()}
    relevance = {name: torch.randn_like(before[name]) for name in ("0.weight", "2.weight")}
    found = removal_curve(net, relevance, data)
    assert len(found) == len(SHARES)
    torch.testing.assert_close(dict(net.state_dict()), before, rtol=0, atol=0)
    assert found[0] == error(net, data)
    ranked = torch.cat([value.flatten() for value in relevance.values()]).sort(descending=True).values
    for share in (0.5, 0.9):
        count = 64 - int(share * 64)
        with torch.no_grad():
            for name, value in relevance.items():
                kept = (value.unsqueeze(-1) == ranked[:count]).any(-1)
                net.get_parameter(name).copy_(before[name] * kept)
        assert found[SHARES.index(share)] == error(net, data)


def test_the_error_is_that_without_noise():
    data = split()
    net = nn.Sequential(nn.Linear(5, 3, bias=False), nn.Dropout(0.9)).train()
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3, 5))
    assert error(net, data) == 0.0
    assert error(net, Split(data.x, data.y, data.x_eval, (data.y_eval + 1) % 3)) == 100.0


def test_the_bound_is_that_of_all_data_in_nats_per_datum():
    data = split(1500)  # two batches
    model = vbd.Classifier(nn.Linear(5, 3), vbd.priors.Gaussian(), num_data=1500)
    guide = vbd.VBDGuide(model, init_log_var=-20.0)
    whole = vbd.VBD_ELBO().terms(model, guide, data.x, data.y).elbo.item() / 1500
    assert bound(model, guide, data) == pytest.approx(whole, rel=1e-3)


def test_gates_move_ten_times_as_fast_as_weights():
    model = vbd.Classifier(nn.Sequential(nn.Linear(5, 3)), vbd.priors.GaussianUniform(), num_data=9)
    guide = vbd.VBDGuide(model)
    bias = model.network.net[0].bias
    fast, slow = two_rates(guide, 0.01)([bias, *guide.parameters()]).param_groups
    assert (fast["lr"], slow["lr"]) == (pytest.approx(0.1), 0.01)
    assert {id(p) for p in fast["params"]} == {id(p) for p in guide.parameters()}
    assert [id(p) for p in slow["params"]] == [id(bias)]


def test_what_is_stranger_counts_as_stranger():
    known, strange = (
        SimpleNamespace(entropy=torch.linspace(0, 1, 9) + more, mutual_information=torch.full((9,), value))
        for more, value in ((0.0, 0.1), (2.0, 0.0))
    )
    assert runs._told_apart(known, strange) == {"auroc_entropy": 1.0, "auroc_information": 0.0}
    known.mutual_information.fill_(torch.nan)  # of a network without a posterior
    assert runs._told_apart(known, strange) == {"auroc_entropy": 1.0}


def test_priors_are_compared_by_their_first_seeds(monkeypatch):
    seen = []
    monkeypatch.setattr(tables, "compare", lambda estimates: seen.append(estimates) or "compared")

    def seeds(*levels):
        noise = torch.randn(1, 300, 4, dtype=torch.float64, device="cpu")
        return [{"log_likelihood": 0.1 * noise + level} for level in levels]

    results = {"vbd": seeds(-1.0, -3.0), "vd": seeds(-2.0, -4.0), "deterministic": [{"error": 5.0}]}
    assert "compared" in tables.tables(results, "strange data")
    (estimates,) = seen
    means = {name: float(tables.pointwise(found).mean()) for name, found in estimates.items()}
    assert means == pytest.approx({"vbd": -1.0, "vd": -2.0}, abs=0.1)
    assert [run["elpd"] for run in results["vbd"]] == pytest.approx([-1.0, -3.0], abs=0.1)
    assert results["vd"][0]["bad_k"] == 0.0
