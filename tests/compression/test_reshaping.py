"""Where units are found behind views, permutations and means; and what is too much."""

import pytest
import torch
from torch import nn

from pyro_vbd.compression import cut


class Shaped(nn.Module):
    def __init__(self, reshape, width):
        super().__init__()
        self.conv, self.out, self.reshape = nn.Conv2d(2, 5, 3), nn.Linear(width, 3), reshape

    def forward(self, x):
        return self.out(self.reshape(self.conv(x)))


@torch.no_grad()
def left(reshape, width):
    net, x = Shaped(reshape, width), torch.randn(3, 2, 6, 6)
    net.conv.weight[1] = 0.0
    found = cut(net, x)
    for inputs in (x, x[:1], torch.randn(4, 2, 6, 6)):
        torch.testing.assert_close(found.network(inputs), net(inputs), rtol=1e-5, atol=1e-5)
    return found.units["conv"][1]


@pytest.mark.parametrize(
    ("reshape", "width"),
    [
        (lambda x: x.flatten(1), 80),
        (lambda x: torch.flatten(x, 1), 80),
        (lambda x: x.view(-1, 80), 80),
        (lambda x: x.view((-1, 80)), 80),
        (lambda x: x.view(x.size(0), -1), 80),
        (lambda x: x.reshape(x.shape[0], 5 * 16), 80),
        (lambda x: torch.reshape(x, (-1, 80)), 80),
        (lambda x: x.view(x.size(0), 5, 16).permute(0, 2, 1), 5),
        (lambda x: x.flatten(2).transpose(1, 2), 5),
        (lambda x: x.permute(0, 2, 3, 1).reshape(-1, 16, 5), 5),
        (lambda x: x.movedim(1, -1), 5),
        (lambda x: x.mean((2, 3)), 5),
        (lambda x: x.mean(dim=[-1]).mean(-1), 5),
        (lambda x: x[:, :, 0, 0], 5),
        (lambda x: x[:, :, 1:3].mean(2).transpose(1, 2), 5),
        (lambda x: x.mean((2, 3)).unsqueeze(1).expand(-1, 3, 5), 5),
        (lambda x: x.mean((2, 3)).unflatten(1, (5, 1)).flatten(1), 5),
        (lambda x: x.mean((2, 3)).unflatten(-1, [5, 1, 1]).mean((2, 3)), 5),
        (lambda x: x.mean((2, 3)).unflatten(dim=1, sizes=(-1, 1)).flatten(1), 5),
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Unflatten(1, (-1, 1)), nn.Flatten()), 5),
        (lambda x: torch.reshape(x, shape=(x.size(0), -1)), 80),
        (lambda x: torch.flatten(input=x, start_dim=1), 80),
        (lambda x: x[:, :, [0, 3]].flatten(1), 40),
        (lambda x: x.narrow(2, 1, 2).flatten(1), 40),
        (lambda x: x.mean((2, 3))[:, 0:5], 5),
    ],
)
def test_units_are_followed(reshape, width):
    assert left(reshape, width) == 4


@pytest.mark.parametrize(
    ("reshape", "width"),
    [
        (lambda x: x[:, :3].flatten(1), 48),
        (lambda x: x.mean((1, 2)), 4),
        (lambda x: x.transpose(1, 2).mean(2), 4),
        (lambda x: x.flatten(0, 1).flatten(1), 16),
        (lambda x: torch.stack([x, x], 1).flatten(2), 80),
        (lambda x: x.chunk(2, 2)[0].flatten(1), 40),
    ],
)
def test_what_takes_the_units_apart_holds_all(reshape, width):
    assert left(reshape, width) == 5


@pytest.mark.parametrize(
    ("reshape", "width"),
    [
        (nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Unflatten(1, (5, 1)), nn.Flatten()), 5),
        (lambda x: x.mean((2, 3)).unflatten(1, sizes=(5, 1)).flatten(1), 5),
        (lambda x: x.reshape(shape=(x.size(0), 80)), 80),
        (lambda x: torch.reshape(x, shape=(-1, 80)), 80),
        (lambda x: torch.reshape(input=x, shape=(-1, 80)), 80),
        (lambda x: x.view(size=(-1, 80)), 80),
        (lambda x: x.mean((2, 3)).unsqueeze(1).expand(size=(-1, 3, 5)), 5),
        (lambda x: x.narrow(1, 0, 5).flatten(1), 80),
        (lambda x: x.narrow(dim=1, start=0, length=5).flatten(1), 80),
        (lambda x: x[:, [4, 3, 2, 1, 0]].flatten(1), 80),
        (lambda x: x[:, [True] * 5].flatten(1), 80),
    ],
)
def test_what_has_the_number_or_the_places_of_the_units_written_into_it_holds_all(reshape, width):
    assert left(reshape, width) == 5
