import re

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.nn.utils.parametrize import register_parametrization

import pyro_vbd as vbd
from pyro_vbd.selection import is_weight, select

A, B = vbd.priors.GaussianUniform(), vbd.priors.LogUniform()


class Net(nn.Module):
    """One parameter of each kind."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        self.head = nn.Linear(10, 1)
        self.norms = nn.ModuleList(
            [nn.LayerNorm((4, 4)), nn.GroupNorm(2, 4), nn.RMSNorm((2, 3)), nn.InstanceNorm1d(4, affine=True)]
        )
        self.attention, self.gate = nn.MultiheadAttention(4, 2), nn.PReLU(4)
        self.matrix = nn.Parameter(torch.randn(3, 4))
        self.class_token, self.layer_scale = nn.Parameter(torch.randn(1, 1, 4)), nn.Parameter(torch.randn(4, 1, 1))
        self.vector, self.number = nn.Parameter(torch.randn(4)), nn.Parameter(torch.tensor(1.0))
        self.position_bias_table = nn.Parameter(torch.randn(3, 4))
        self.pos_embedding, self.queries = nn.Parameter(torch.randn(7, 4)), nn.Parameter(torch.randn(1, 7, 4))
        self.raw = nn.ParameterDict({"token": torch.randn(1, 1, 4), "matrix": torch.randn(2, 2)})
        self.counts = nn.Parameter(torch.ones(3, 3, dtype=torch.long), requires_grad=False)


WEIGHTS = ["matrix", "conv.weight", "head.weight", "attention.in_proj_weight", "attention.out_proj.weight", "raw.matrix"]


def test_default_takes_weights_and_leaves_biases_norms_tokens_and_scales():
    assert sorted(select(Net(), A)) == sorted(WEIGHTS)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: nn.Linear(10, 1), ["weight"]),
        (lambda: nn.Linear(1, 1), ["weight"]),
        (lambda: nn.Embedding(5, 1), ["weight"]),
        (lambda: nn.Bilinear(1, 1, 1), ["weight"]),
        (lambda: nn.LSTM(1, 1), ["weight_ih_l0", "weight_hh_l0"]),
        (lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5, add_bias_kv=True),
         ["q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj.weight"]),
        *((lambda shape=shape: weight_norm(nn.Linear(*shape)), ["parametrizations.weight.original1"])
          for shape in ((3, 2), (3, 1), (1, 3), (1, 1))),
        (lambda: weight_norm(nn.Conv1d(2, 1, 3)), ["parametrizations.weight.original1"]),
        (lambda: spectral_norm(nn.Linear(3, 1)), ["parametrizations.weight.original"]),
        (lambda: type("OwnLinear", (nn.Linear,), {})(10, 1), ["weight"]),
        (lambda: nn.ModuleList([nn.BatchNorm1d(3), nn.Linear(2, 2)]), ["1.weight"]),
        (lambda: nn.ModuleDict({"debiased": nn.Linear(2, 2)}), ["debiased.weight"]),
        (lambda: register_parametrization(nn.Linear(3, 2), "bias", nn.Identity()), ["weight"]),
    ],
)  # fmt: skip
def test_default_on_layers(make, names):
    assert list(select(make(), A)) == names


def test_raw_parameters_in_a_subclass_of_a_container_are_raw():
    class Stack(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(3, 2))
            self.token = nn.Parameter(torch.zeros(1, 1, 3))

    assert list(select(Stack(), A)) == ["0.weight"]


@pytest.mark.parametrize(
    ("where", "names"),
    [
        (None, WEIGHTS),
        ("*", WEIGHTS),
        ("head", ["head.weight"]),
        ("head.*", ["head.weight"]),
        ("head.weight", ["head.weight"]),
        ("head.bias", ["head.bias"]),
        ("number", ["number"]),
        ("pos_embedding", ["pos_embedding"]),
        ("norm.weight", ["norm.weight"]),
        (["head", "matrix"], ["matrix", "head.weight"]),
        (("conv.*", "vector"), ["vector", "conv.weight"]),
        ("attention*", ["attention.in_proj_weight", "attention.out_proj.weight"]),
        (nn.Linear, ["head.weight", "attention.out_proj.weight"]),
        ((nn.Linear, nn.Conv2d), ["conv.weight", "head.weight", "attention.out_proj.weight"]),
        (lambda name, parameter, owner: parameter.shape == (4,) and isinstance(owner, Net), ["vector"]),
        (lambda name, parameter, owner: "bias" in name and isinstance(owner, nn.Conv2d), ["conv.bias"]),
        (is_weight, WEIGHTS),
    ],
)
def test_where(where, names):
    assert sorted(select(Net(), A, where)) == sorted(names)


def test_first_matching_prior_counts_and_the_rest_is_not_bayesian():
    assert select(Net(), {"head.*": B, "conv": A}) == {"conv.weight": A, "head.weight": B}
    assert select(Net(), {"matrix": B, "*": A}) == {name: B if name == "matrix" else A for name in select(Net(), A)}


def test_frozen_weights_are_selected_by_name_alone():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    net[0].requires_grad_(False)
    assert list(select(net, A)) == ["1.weight"]
    assert list(select(net, A, where="0")) == ["0.weight"]
    assert list(select(net, A, where=nn.Linear)) == ["0.weight", "1.weight"]
    with pytest.raises(ValueError, match=r"for \['0.weight'\] matches no .* \(frozen ones are left out unless where="):
        select(net, {"0.weight": A, "1.weight": A})
    net.requires_grad_(False)
    with pytest.raises(ValueError, match=r"selects no weight of Sequential \(frozen ones are left out"):
        select(net, A)


def test_tied_weights_are_selected_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert list(select(net, A)) == ["0.weight"]


@pytest.mark.parametrize(
    ("prior", "where", "error", "message"),
    [
        ("normal", None, TypeError, "prior='normal' (for '*') is no prior: use one of vbd.priors"),
        (None, None, TypeError, "prior=None"),
        (vbd.priors.GaussianUniform, None, TypeError, "is no prior"),
        ({"conv.*": A, "head": 3}, None, TypeError, "prior=3 (for 'head') is no prior"),
        (A, 3, TypeError, "where=3 is no selection: use a pattern, a module type"),
        (A, [], TypeError, "where=[] is no selection"),
        (A, (), TypeError, "where=() is no selection"),
        (A, ["conv", 3], TypeError, "is no selection"),
        (A, int, TypeError, "is no selection"),
        (A, (nn.Linear, int), TypeError, "is no selection"),
        (A, "missing", ValueError, "where='missing' selects no weight of Net: its parameters are ["),
        (A, nn.Conv1d, ValueError, "selects no weight of Net"),
        (A, lambda *_: False, ValueError, "selects no weight of Net"),
        ({}, None, ValueError, "selects no weight of Net"),
        ({"*": A, "haed.*": B}, None, ValueError, "the prior for ['haed.*'] matches no selected weight of ["),
        ({"head": A, "conv": B}, "head", ValueError, "the prior for ['conv'] matches no selected weight"),
        (A, "counts", ValueError, "'counts' holds torch.int64, which has no Gaussian prior: leave it out by where="),
        (A, lambda *_: True, ValueError, "'counts' holds torch.int64"),
    ],
)
def test_errors(prior, where, error, message):
    with pytest.raises(error, match=re.escape(message)):
        select(Net(), prior, where)


def test_network_without_parameters():
    with pytest.raises(ValueError, match="selects no weight of ReLU"):
        select(nn.ReLU(), A)


def test_one_pattern_of_several_that_matches_nothing():
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=r"where=\['cnov\*'\] matches no weight"):
        select(net, vbd.priors.Gaussian(1.0), where=["0", "cnov*"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_refused(dtype):
    """A step of 0.001 rounds away on a mean of 1, and no scale can be told from another."""
    net = nn.Sequential(nn.Linear(3, 4).to(dtype), nn.Linear(4, 2))
    with pytest.raises(ValueError, match=rf"'0.weight' holds {dtype}, to which a step of training rounds away: use net"):
        select(net, A)
    assert set(select(net, A, where="1")) == {"1.weight"}


@pytest.mark.filterwarnings("ignore:.*is deprecated")
def test_torchscript_is_refused():
    scripted = torch.jit.script(nn.Linear(3, 4))
    for net in (scripted, nn.Sequential(scripted, nn.Linear(4, 2))):
        with pytest.raises(ValueError, match="holds TorchScript, which keeps its weights: pass the module it was made of"):
            select(net, A)


@pytest.mark.filterwarnings("ignore:Lazy modules")
def test_lazy_layers_that_have_not_run_are_refused_by_name():
    with pytest.raises(ValueError, match=r"\['0.weight', '0.bias'\] have no shape yet: run the network once"):
        select(nn.Sequential(nn.LazyLinear(3), nn.Linear(3, 2)), A)
