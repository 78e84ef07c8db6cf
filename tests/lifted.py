"""Models of a lifted network, and a network with a tied weight."""

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn

import pyro_vbd as vbd
from pyro_vbd.network import StochasticNetwork


def log_likelihood_model(lifted: StochasticNetwork, x: Tensor):
    def model():
        output = lifted(x).squeeze(-1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(output, 1.0), obs=torch.ones(len(x)))
        return output

    return model


def ready(guide: vbd.VBDGuide) -> vbd.VBDGuide:
    guide()
    return guide


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self):
        super().__init__()
        self.embedding, self.output = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.output.weight = self.embedding.weight

    def forward(self, tokens):
        return self.output(self.embedding(tokens))
