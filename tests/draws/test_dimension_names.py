from collections import OrderedDict

import pyro
import pyro.distributions as dist
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.draws.dimension_names import dimension_names, module_dimensions
from pyro_vbd.posterior.hierarchy import find_hierarchy
from pyro_vbd.prototype import run_with, sample_sites


def names(model, *args):
    return dimension_names(sample_sites(run_with({}, model, args, {})), model, find_hierarchy(model, args, {}))


def test_modules():
    net = nn.ModuleDict(
        {
            "fc": nn.Linear(2, 3),
            "conv": nn.Conv2d(3, 5, 2),
            "up": nn.ConvTranspose1d(2, 4, 3),
            "pair": nn.Bilinear(2, 3, 4),
            "words": nn.Embedding(7, 2),
            "bag": nn.EmbeddingBag(7, 2),
            "norm": nn.LayerNorm(4),
        }
    )
    every = vbd.lift(net, vbd.priors.GaussianUniform(), where=lambda name, parameter, owner: True)
    found = module_dimensions(every)
    assert found == {
        "fc.weight": ("fc.out", "fc.in"),
        "fc.bias": ("fc.out",),
        "conv.weight": ("conv.out", "conv.in", "conv.height", "conv.width"),
        "conv.bias": ("conv.out",),
        "up.weight": ("up.in", "up.out", "up.width"),
        "up.bias": ("up.out",),
        "pair.weight": ("pair.out", "pair.in1", "pair.in2"),
        "pair.bias": ("pair.out",),
        "words.weight": ("words.index", "words.feature"),
        "bag.weight": ("bag.index", "bag.feature"),
    }
    assert module_dimensions(lambda x: x) == {}


def test_names_of_lifted_networks_are_in_front():
    assert module_dimensions(vbd.lift(nn.Linear(2, 3), vbd.priors.Gaussian(), name="head")) == {
        "head.weight": ("head.out", "head.in")
    }
    assert module_dimensions(vbd.lift(nn.Linear(2, 3), vbd.priors.Gaussian())) == {"weight": ("out", "in")}


def test_a_classifier():
    net = nn.Sequential(OrderedDict(fc1=nn.Linear(4, 3), fc2=nn.Linear(3, 2)))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=9)
    assert names(model, torch.randn(5, 4), torch.zeros(5).long()) == {
        "fc1.weight_gamma": ("fc1.out", "fc1.in"),
        "fc1.weight": ("fc1.out", "fc1.in"),
        "fc2.weight_gamma": ("fc2.out", "fc2.in"),
        "fc2.weight": ("fc2.out", "fc2.in"),
        "y": ("data",),
    }


def test_gammas_that_are_shared():
    """Of a unit, as a vector and with a dimension of 1; of an input; of a layer; and a level above."""

    def model(x):
        tau = pyro.sample("tau", dist.Uniform(0.0, 1.0))
        unit = pyro.sample("unit", dist.HalfNormal(1.0).expand([3]).to_event(1))
        column = pyro.sample("column", dist.HalfNormal(1.0).expand([3, 1]).to_event(2))
        row = pyro.sample("row", dist.HalfNormal(1.0).expand([4]).to_event(1))
        a = pyro.sample("a", dist.Normal(0, unit[:, None] * tau * torch.ones(3, 4)).to_event(2))
        b = pyro.sample("b", dist.Normal(0, column * torch.ones(3, 4)).to_event(2))
        c = pyro.sample("c", dist.Normal(0, row * torch.ones(3, 4)).to_event(2))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(((a + b + c) @ x.T).T, 1.0).to_event(1), obs=torch.zeros(len(x), 3))

    found = names(model, torch.randn(5, 4))
    assert found["a"] == ("a_dim_0", "a_dim_1")
    assert found["unit"] == ("a_dim_0",)
    assert found["column"] == ("b_dim_0", "column_dim_1")
    assert found["row"] == ("c_dim_1",)
    assert found["tau"] == ()
    assert found["y"] == ("data", "y_dim_1")


def test_plates_of_latents():
    def model(x):
        with pyro.plate("groups", 3, dim=-2), pyro.plate("members", 2, dim=-1):
            pyro.sample("z", dist.Dirichlet(torch.ones(4)))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x, 1.0), obs=x)

    assert names(model, torch.randn(5)) == {"z": ("groups", "members", "z_dim_2"), "y": ("data",)}
