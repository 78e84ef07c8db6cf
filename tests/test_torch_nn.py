"""No silent nothing: every module of torch.nn with a weight is random under the guide, and its weights learn."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import pytest
import torch
import torch.nn.utils.parametrizations as parametrizations
from torch import Tensor, nn

import pyro_vbd as vbd
from pyro_vbd.paired_traces import estimator_by_site, paired_traces

E = 8


class Recipe(NamedTuple):
    """How to make a module, what to run it on, and which tensor its output is."""

    make: Callable[[], nn.Module]
    inputs: Callable[[], tuple[Any, ...]]
    tensor: Callable[[Any], Tensor] = lambda output: output


def first(output: Any) -> Tensor:
    return output[0]


def data(*shapes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: tuple(torch.randn(shape) for shape in shapes)


def tokens() -> tuple[Tensor, ...]:
    return (torch.randint(5, (4, 3)),)


SEQUENCE = data((4, 3, E))

#: Every module class of torch.nn with a weight of two or more dimensions.
RECIPES = {
    "AdaptiveLogSoftmaxWithLoss": Recipe(
        lambda: nn.AdaptiveLogSoftmaxWithLoss(E, 10, cutoffs=[2, 5], div_value=2.0),
        lambda: (torch.randn(10, E), torch.arange(10)),
        first,
    ),
    "Bilinear": Recipe(lambda: nn.Bilinear(3, 4, 2), data((5, 3), (5, 4))),
    "Conv1d": Recipe(lambda: nn.Conv1d(2, 3, 3), data((2, 2, 6))),
    "Conv2d": Recipe(lambda: nn.Conv2d(2, 3, 3), data((2, 2, 6, 6))),
    "Conv3d": Recipe(lambda: nn.Conv3d(2, 3, 3), data((2, 2, 4, 4, 4))),
    "ConvTranspose1d": Recipe(lambda: nn.ConvTranspose1d(2, 3, 3), data((2, 2, 6))),
    "ConvTranspose2d": Recipe(lambda: nn.ConvTranspose2d(2, 3, 3), data((2, 2, 6, 6))),
    "ConvTranspose3d": Recipe(lambda: nn.ConvTranspose3d(2, 3, 3), data((2, 2, 4, 4, 4))),
    "Embedding": Recipe(lambda: nn.Embedding(5, E, padding_idx=0), tokens),
    "EmbeddingBag": Recipe(lambda: nn.EmbeddingBag(5, E, mode="mean"), tokens),
    "GRU": Recipe(lambda: nn.GRU(E, 5, num_layers=2, bidirectional=True), SEQUENCE, first),
    "GRUCell": Recipe(lambda: nn.GRUCell(E, 5), data((4, E), (4, 5))),
    "LSTM": Recipe(lambda: nn.LSTM(E, 5, num_layers=2, bidirectional=True, proj_size=3), SEQUENCE, first),
    "LSTMCell": Recipe(
        lambda: nn.LSTMCell(E, 5), lambda: (torch.randn(4, E), (torch.randn(4, 5), torch.randn(4, 5))), first
    ),
    "LazyConv1d": Recipe(lambda: nn.LazyConv1d(3, 3), data((2, 2, 6))),
    "LazyConv2d": Recipe(lambda: nn.LazyConv2d(3, 3), data((2, 2, 6, 6))),
    "LazyConv3d": Recipe(lambda: nn.LazyConv3d(3, 3), data((2, 2, 4, 4, 4))),
    "LazyConvTranspose1d": Recipe(lambda: nn.LazyConvTranspose1d(3, 3), data((2, 2, 6))),
    "LazyConvTranspose2d": Recipe(lambda: nn.LazyConvTranspose2d(3, 3), data((2, 2, 6, 6))),
    "LazyConvTranspose3d": Recipe(lambda: nn.LazyConvTranspose3d(3, 3), data((2, 2, 4, 4, 4))),
    "LazyLinear": Recipe(lambda: nn.LazyLinear(3), data((4, 5))),
    "Linear": Recipe(lambda: nn.Linear(5, 3), data((4, 5))),
    "LinearCrossEntropyLoss": Recipe(
        lambda: nn.LinearCrossEntropyLoss(5, 3), lambda: (torch.randn(4, 5), torch.randint(3, (4,)))
    ),
    "MultiheadAttention": Recipe(lambda: nn.MultiheadAttention(E, 2), data((3, 4, E), (5, 4, E), (5, 4, E)), first),
    "NonDynamicallyQuantizableLinear": Recipe(
        lambda: nn.modules.linear.NonDynamicallyQuantizableLinear(5, 3), data((4, 5))
    ),
    "RNN": Recipe(lambda: nn.RNN(E, 5, num_layers=2, bidirectional=True), SEQUENCE, first),
    "RNNCell": Recipe(lambda: nn.RNNCell(E, 5), data((4, E), (4, 5))),
    "Transformer": Recipe(lambda: nn.Transformer(E, 2, 1, 1, 16, 0.0, batch_first=True), data((4, 3, E), (4, 5, E))),
    "TransformerDecoder": Recipe(
        lambda: nn.TransformerDecoder(nn.TransformerDecoderLayer(E, 2, 16, 0.0), 2), data((3, 4, E), (5, 4, E))
    ),
    "TransformerDecoderLayer": Recipe(lambda: nn.TransformerDecoderLayer(E, 2, 16, 0.0), data((3, 4, E), (5, 4, E))),
    "TransformerEncoder": Recipe(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(E, 2, 16, 0.0, batch_first=True), 2), SEQUENCE
    ),
    "TransformerEncoderLayer": Recipe(lambda: nn.TransformerEncoderLayer(E, 2, 16, 0.0, batch_first=True), SEQUENCE),
}

#: Other settings of the same classes, and what wraps them.
VARIANTS = {
    "EmbeddingBag sum": Recipe(lambda: nn.EmbeddingBag(5, E, mode="sum"), tokens),
    "EmbeddingBag max": Recipe(lambda: nn.EmbeddingBag(5, E, mode="max"), tokens),
    "Embedding max_norm": Recipe(lambda: nn.Embedding(5, E, max_norm=1.0), tokens),
    "Conv2d circular": Recipe(lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), data((2, 2, 6, 6))),
    "GRU batch_first": Recipe(lambda: nn.GRU(E, 5, batch_first=True, bias=False), SEQUENCE, first),
    "LSTM one layer": Recipe(lambda: nn.LSTM(E, 5), SEQUENCE, first),
    "RNN relu": Recipe(lambda: nn.RNN(E, 5, nonlinearity="relu"), SEQUENCE, first),
    "LSTM packed": Recipe(
        lambda: nn.LSTM(E, 5),
        lambda: (nn.utils.rnn.pack_padded_sequence(torch.randn(3, 2, E), torch.tensor([3, 2], device="cpu")),),
        lambda output: output[0].data,
    ),
    "MultiheadAttention kdim, vdim": Recipe(
        lambda: nn.MultiheadAttention(E, 2, kdim=3, vdim=5), data((3, 4, E), (5, 4, 3), (5, 4, 5)), first
    ),
    "MultiheadAttention bias_kv": Recipe(
        lambda: nn.MultiheadAttention(E, 2, add_bias_kv=True), data((3, 4, E), (5, 4, E), (5, 4, E)), first
    ),
    "MultiheadAttention self": Recipe(
        lambda: nn.MultiheadAttention(E, 2, batch_first=True), lambda: (torch.randn(4, 3, E),) * 3, first
    ),
    "TransformerEncoderLayer norm_first": Recipe(
        lambda: nn.TransformerEncoderLayer(E, 2, 16, 0.0, norm_first=True, activation="gelu"), SEQUENCE
    ),
    "weight_norm": Recipe(lambda: parametrizations.weight_norm(nn.Linear(5, 3)), data((4, 5))),
    "weight_norm conv": Recipe(lambda: parametrizations.weight_norm(nn.Conv2d(2, 3, 3)), data((2, 2, 6, 6))),
    "spectral_norm": Recipe(lambda: parametrizations.spectral_norm(nn.Linear(5, 3)), data((4, 5))),
    "orthogonal": Recipe(lambda: parametrizations.orthogonal(nn.Linear(4, 4)), data((4, 4))),
    "orthogonal cayley": Recipe(
        lambda: parametrizations.orthogonal(nn.Linear(4, 4), orthogonal_map="cayley"), data((4, 4))
    ),
}

#: Classes without a recipe: no weights of their own, or not to be run alone.
EXEMPT = {
    "Container": "deprecated alias of Module",
    "CrossMapLRN2d": "no parameters",
    "DataParallel": "copies a module to several devices",
    "Module": "the base class",
    "ParameterDict": "holds parameters, runs nothing",
    "ParameterList": "holds parameters, runs nothing",
    "RNNBase": "base class of RNN, LSTM and GRU",
    "RNNCellBase": "base class of RNNCell, LSTMCell and GRUCell",
    "SyncBatchNorm": "a BatchNorm of several processes",
}


def module_classes() -> dict[str, type[nn.Module]]:
    found = {n: c for n, c in vars(nn).items() if isinstance(c, type) and issubclass(c, nn.Module)}
    return {**found, "NonDynamicallyQuantizableLinear": nn.modules.linear.NonDynamicallyQuantizableLinear}


def makes_no_weight(cls: type[nn.Module]) -> bool:
    """Whether the class can be made of plain arguments, and has no parameter of two or more dimensions."""
    arguments = [(2,) * count for count in range(4)] + [(((2,),) * 1), ("2", 2), (1, (2,)), (2, 2, 0.5)]
    for args in arguments:
        try:
            module = cls(*args)
        except (TypeError, ValueError, AssertionError, RuntimeError):
            continue
        return all(isinstance(p, nn.UninitializedParameter) or p.dim() < 2 for p in module.parameters()) and not any(
            part in cls.__name__ for part in ("LazyConv", "LazyLinear")
        )
    return False


@pytest.mark.filterwarnings("ignore")
def test_every_module_class_of_torch_has_a_recipe():
    without = sorted(
        name
        for name, cls in module_classes().items()
        if name not in RECIPES and name not in EXEMPT and not makes_no_weight(cls)
    )
    assert not without, f"torch.nn has modules that this file does not know: add recipes for {without}"


def run(net: nn.Module, inputs: tuple[Any, ...], tensor: Callable[[Any], Tensor], estimator: str) -> None:
    """Check that the output is random, and that each weight has a gradient from the likelihood alone."""
    lifted = vbd.lift(net, vbd.priors.GaussianUniform())

    def model() -> Tensor:
        output = tensor(lifted(*inputs))
        if not output.isfinite().all():
            raise AssertionError("the output is not finite")
        target = torch.linspace(-1.0, 1.0, output.numel()).reshape(output.shape)
        pyro.sample("y", dist.Normal(output, 1.0).to_event(output.dim()), obs=target)
        return output

    guide = vbd.VBDGuide(model, init_log_var=-6.0)
    assert lifted.priors
    guide()  # sets up its parameters
    traces = [paired_traces(model, guide, (), {}, estimator_by_site(estimator))[0] for _ in range(2)]
    assert not torch.equal(*(trace.nodes["_RETURN"]["value"] for trace in traces))
    traces[0].nodes["y"]["log_prob_sum"].backward()
    gradients = dict(guide.named_parameters())
    assert len(gradients) == 2 * len(lifted.priors)
    for name, parameter in gradients.items():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


@pytest.mark.filterwarnings(
    "ignore:LSTM with projections", "ignore:RNN module weights are not part", "ignore:There is a performance drop"
)
@pytest.mark.parametrize(
    ("name", "estimator", "training"),
    [(name, estimator, True) for name in [*RECIPES, *VARIANTS] for estimator in ("local", "weights")]
    # where eval() runs other code
    + [
        (name, "local", False)
        for name in [*RECIPES, *VARIANTS]
        if any(p in name for p in ("Transformer", "Attention", "_norm"))
    ],
)
def test_output_is_random_and_every_weight_learns(name, estimator, training):
    if name in RECIPES and name not in module_classes():
        pytest.skip(f"this torch has no nn.{name}")
    recipe = (RECIPES | VARIANTS)[name]
    net, inputs = recipe.make().train(training), recipe.inputs()
    if name.startswith("Lazy"):
        net(*inputs)
    run(net, inputs, recipe.tensor, estimator)


def test_sparse_embedding_learns_by_local_noise():
    """Its gradient is dense, like that of every other weight."""
    run(nn.Embedding(5, E, sparse=True), tokens(), lambda output: output, "local")


@pytest.mark.parametrize("make", [lambda: nn.LazyLinear(3), lambda: nn.Sequential(nn.Linear(3, 3), nn.LazyConv2d(3, 3))])
def test_uninitialised_lazy_module_is_refused(make):
    with pytest.raises(ValueError, match=r"weight.*no shape yet: run the network once"):
        vbd.lift(make(), vbd.priors.GaussianUniform())


def test_weight_that_is_never_read_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            self.idle.weight.t()  # a view is no use
            return self.used(x)

    with pytest.raises(RuntimeError, match=r"idle.weight"):
        run(Net(), data((4, 3))(), lambda output: output, "local")


TORCHVISION = {
    "resnet18": ({}, 64),
    "convnext_tiny": ({}, 64),
    "vit_b_16": ({"image_size": 32}, 32),
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize(("estimator", "training"), [("local", True), ("local", False)])
@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision(name, estimator, training):
    models = pytest.importorskip("torchvision.models")
    settings, size = TORCHVISION[name]
    net = getattr(models, name)(weights=None, num_classes=4, **settings).train(training)
    for module in net.modules():  # the noise of the weights alone
        if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.p = 0.0
    run(net, (torch.rand(2, 3, size, size),), lambda output: output, estimator)
