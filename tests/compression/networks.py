"""Networks with random weights of 0, and the property that a cut leaves the function as it is."""

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from pyro_vbd.compression import cut
from pyro_vbd.noise import Gate, HeadwiseAttention


class Residual(nn.Module):
    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + self.shortcut(x)


class Concatenated(nn.Module):
    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Excited(nn.Module):
    """Channels multiplied by what their means say (squeeze and excitation)."""

    def __init__(self, channels: int, dims: int) -> None:
        super().__init__()
        self.dims = dims
        self.down, self.up = nn.Linear(channels, 3), nn.Linear(3, channels)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.up(self.down(x.mean(tuple(range(2, 2 + self.dims)))).relu()).sigmoid()
        return x * scale[(..., *(None,) * self.dims)]


class Written(nn.Module):
    """A flatten with its size written into the code."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x.view(-1, self.size)


class Block(nn.Module):
    """Tokens: attention and two layers, each behind a norm and in a residual sum."""

    def __init__(self, width: int, heads: int, gated: bool) -> None:
        super().__init__()
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = HeadwiseAttention(width, heads) if gated else nn.MultiheadAttention(width, heads, batch_first=True)
        self.up, self.down = nn.Linear(width, 3 * width), nn.Linear(3 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.down(nn.functional.gelu(self.up(self.second(x))))


class Tied(nn.Module):
    """A model of words whose last layer has the weights of its first."""

    def __init__(self, words: int, width: int, tied: bool = True) -> None:
        super().__init__()
        self.words, self.middle = nn.Embedding(words, width), nn.Linear(width, width)
        self.out = nn.Linear(width, words)
        if tied:
            self.out.weight = self.words.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.middle(self.words(x)).relu())


class LastToken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1]


ACTIVATIONS = st.sampled_from(
    [nn.ReLU, nn.Tanh, nn.Sigmoid, nn.Softplus, nn.GELU, nn.LeakyReLU, nn.ELU, nn.Identity, nn.PReLU]
)


@st.composite
def dense(draw, inputs: int) -> nn.Sequential:
    """Fully connected layers on ``(B, inputs)``."""
    layers: list[nn.Module] = []
    width = inputs
    for _ in range(draw(st.integers(1, 3))):
        new = draw(st.integers(2, 9))
        branch = nn.Linear(width, new, bias=draw(st.booleans()))
        kind = draw(st.sampled_from(["plain", "residual", "identity", "concatenated"]))
        if kind == "identity":
            layers.append(Residual(nn.Sequential(branch, nn.ReLU(), nn.Linear(new, width)), nn.Identity()))
            new = width
        elif kind == "residual":
            layers.append(Residual(branch, nn.Linear(width, new)))
        elif kind == "concatenated":
            layers.append(Concatenated(branch, nn.Linear(width, 3)))
            new += 3
        else:
            layers.append(branch)
        layers.append(draw(ACTIVATIONS)())
        extra = draw(st.sampled_from(["none", "gate", "dropout", "norm", "layer norm", "group norm"]))
        if extra == "group norm":
            layers.append(nn.GroupNorm(draw(st.sampled_from([d for d in (1, 2, 3) if new % d == 0 and new > d])), new))
        elif extra != "none":
            made = {"gate": lambda w: Gate(w), "norm": nn.BatchNorm1d, "layer norm": nn.LayerNorm, "dropout": _dropout}
            layers.append(made[extra](new))
        width = new
    return nn.Sequential(*layers, nn.Linear(width, 4))


def _dropout(width: int) -> nn.Module:
    return nn.Dropout(0.5)


@st.composite
def convolution(draw, dims: int, inputs: int, outputs: int) -> nn.Module:
    kind = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
    padding = draw(st.sampled_from([0, 1, "same"]))
    groups = draw(st.sampled_from([g for g in (1, 2, 3, inputs) if inputs % g == 0 and outputs % g == 0]))
    mode = draw(st.sampled_from(["zeros", "circular"]))
    return kind(inputs, outputs, 3, padding=padding, groups=groups, bias=draw(st.booleans()), padding_mode=mode)


@st.composite
def convolutional(draw, dims: int) -> tuple[nn.Module, Tensor]:
    """Convolutions on ``(B, C, 10, ...)``, ended by one of the usual heads."""
    pools = {1: (nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d), 2: (nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)}
    norm = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d}[dims]
    maximum, average, adaptive = pools[dims]
    width = draw(st.integers(1, 4))
    x = torch.randn(3, width, *(10,) * dims)
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 3))):
        new = draw(st.sampled_from([2, 4, 6]))
        body: nn.Module = draw(convolution(dims, width, new))
        kind = draw(st.sampled_from(["plain", "residual", "identity", "concatenated", "depthwise", "excited"]))
        conv = {1: nn.Conv1d, 2: nn.Conv2d}[dims]
        if kind == "identity":
            body, new = Residual(conv(width, width, 3, padding=1), nn.Identity()), width
        elif kind == "residual":
            body = Residual(conv(width, new, 3, padding=1), nn.Sequential(conv(width, new, 1), norm(new)))
        elif kind == "concatenated":
            body, new = Concatenated(conv(width, new, 1), conv(width, 2, 1)), new + 2
        elif kind == "depthwise":
            body = nn.Sequential(body, nn.ReLU(), conv(new, new, 3, padding=1, groups=new))
        elif kind == "excited":
            body = nn.Sequential(body, Excited(new, dims))
        layers += [body]
        if draw(st.booleans()):
            layers.append(norm(new))
        layers.append(draw(ACTIVATIONS)())
        if draw(st.booleans()):
            layers.append(Gate(new))
        width = new
    layers += draw(
        st.sampled_from(
            [[], [maximum(2)], [maximum(3, 2, padding=1)], [average(2)], [average(3, 2, padding=1)], [nn.Dropout()]]
        )
    )
    net = nn.Sequential(*layers).eval()
    shape = net(x).shape
    flat = shape[1:].numel()
    end = draw(st.sampled_from(["pooled", "flat", "written"]))
    if end == "pooled":
        return nn.Sequential(net, adaptive(1), nn.Flatten(), draw(dense(width))), x
    return nn.Sequential(net, nn.Flatten() if end == "flat" else Written(flat), draw(dense(flat))), x


@st.composite
def tokens(draw) -> tuple[nn.Module, Tensor]:
    width, heads = 8, draw(st.sampled_from([1, 2, 4]))
    blocks = [Block(width, heads, draw(st.booleans())) for _ in range(draw(st.integers(1, 2)))]
    return nn.Sequential(nn.Embedding(11, width), *blocks, LastToken(), draw(dense(width))), torch.randint(11, (3, 5))


@torch.no_grad()
def remove_at_random(net: nn.Module, share: float, units: float, generator: torch.Generator) -> nn.Module:
    """Random weights, of which a share is 0, and of which whole rows are; norms as after training."""

    def chance(shape, share):
        return (torch.rand(shape, generator=generator) > share).to(torch.get_default_dtype())

    for module in net.modules():
        for parameter in module.parameters(recurse=False):
            rows = parameter.shape[:1] + (1,) * (parameter.dim() - 1)
            parameter.normal_(generator=generator)
            if parameter.dim() > 1:
                parameter.mul_(chance(parameter.shape, share)).mul_(chance(rows, units))
            else:
                parameter.mul_(chance(parameter.shape, units))
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return net.eval()


@torch.no_grad()
def through(middle, left, x=None, last=None):
    """A middle step behind a channel that is constant at -1.5, in front of a convolution that can fold."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3), middle, last or nn.Conv2d(4, 3, 3)).eval()
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    net[0].weight[1] = 0.0
    net[0].bias[1] = -1.5
    x = torch.randn(2, 2, 10, 10) if x is None else x
    found = cut(net, x)
    assert found.units["0"] == (4, left)
    torch.testing.assert_close(found.network(x), net(x), rtol=1e-5, atol=1e-5)
    return found.network


@torch.no_grad()
def assert_same_function(net: nn.Module, small: nn.Module, x: Tensor) -> None:
    expected = net(x)
    torch.testing.assert_close(small(x), expected, rtol=1e-5, atol=1e-5 * max(1.0, float(expected.abs().max())))
