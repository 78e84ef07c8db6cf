"""A small residual network for 32x32 colour images (He et al. 2016, section 4.2), its convolutions n in each stage."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["resnet"]


class Block(nn.Module):
    """Two 3x3 convolutions and a sum; each nonlinearity is a module of its own, so that gates can stand behind it."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs),
        )  # fmt: skip
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        self.out = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(self.body(x) + self.shortcut(x))
        return out


def resnet(blocks: int = 1, width: int = 16, classes: int = 10) -> nn.Sequential:
    """Three stages of ``blocks`` residual blocks with width, 2 width and 4 width channels: 6 blocks + 2 layers deep.

    Args:
        blocks: in a stage; 1 makes ResNet-8, 3 ResNet-20.
        width: channels of the first stage.
        classes: outputs.
    """
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for stage in range(3):
        for block in range(blocks):
            outputs = width * 2**stage
            layers.append(Block(channels, outputs, stride=2 if stage and not block else 1))
            channels = outputs
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return net
