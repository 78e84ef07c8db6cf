"""Networks with a likelihood, as Pyro models: classification and regression."""

from __future__ import annotations

import operator
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_leaves, tree_map

from pyro_vbd.inputs import arguments
from pyro_vbd.likelihoods import GaussianLikelihood, bernoulli, categorical
from pyro_vbd.network import StochasticNetwork
from pyro_vbd.parameters import announced, unique_label
from pyro_vbd.priors.prior import Prior
from pyro_vbd.prototype import Prototyped
from pyro_vbd.selection import Where
from pyro_vbd.target_checks import (
    binary_targets,
    check_data_dimension,
    check_inputs,
    check_shape,
    check_size,
    check_targets,
    class_targets,
)

__all__ = ["Classifier", "Regressor", "SupervisedModel"]

#: From what a network returns to the distribution of its targets.
Likelihood = Callable[[Any], dist.TorchDistribution]

_HALF = (torch.float16, torch.bfloat16)


class SupervisedModel(nn.Module, Prototyped):
    r"""A lifted network and a likelihood, as the Pyro model ``model(x, y=None)``. Abstract.

    .. math:: W \sim p(W), \qquad y_i \sim p(y_i \,|\, f(x_i; W)), \quad i \in \text{plate of size } N

    The site of the targets is ``"y"``, in the plate ``"data"``, which scales a mini-batch of B by N/B.
    """

    def __init__(
        self,
        net: nn.Module,
        prior: Prior | Mapping[str, Prior],
        num_data: int,
        where: Where,
        likelihood: Likelihood | None,
    ) -> None:
        super().__init__()
        size = _integer(num_data)
        if size is None or size <= 0:
            raise ValueError(f"num_data={num_data!r} is no number of data: pass len(training set), a positive integer")
        self.network = StochasticNetwork(net, prior, where, name="")
        self.num_data = size
        self._likelihood = likelihood
        self._label = unique_label("likelihood")

    def prototype(self) -> None:
        """State the priors of all Bayesian weights; the network does not run."""
        self.network.prototype()

    def forward(self, x: Any, y: Tensor | None = None) -> Tensor:
        """Draw the weights, run the network on ``x``, and observe ``y`` (or draw it, where it is None).

        Args:
            x: the network's input, a tensor of shape ``(B, ...)`` or a packed sequence; or a tuple of its positional or a
                dict of its keyword inputs.
            y: targets, of shape ``(B, ...)``.

        Returns:
            ``y``, or a draw of it.

        Raises:
            ValueError: for an empty batch, one for training that is larger than ``num_data``, inputs that are one datum
                without a dimension of data or not finite, or targets that do not fit the outputs. Values are looked at
                only while Pyro's validation is on, as it is by default.
        """
        check_inputs(x)
        outputs, lead = self.network.run(*arguments(x))
        outputs = tree_map(_in_single_precision, outputs)
        if self._likelihood is not None:
            fn = self._call_likelihood(self._likelihood, outputs)
        elif isinstance(outputs, Tensor):
            fn, y = self.default_likelihood(outputs, y, lead)
        else:
            raise ValueError(
                f"the network returns a {type(outputs).__name__}: let it return one tensor, or pass likelihood=, a "
                "function of what it returns"
            )
        events = len(fn.batch_shape) - lead - 1
        if events:
            mend = f"declare the dimensions of one target by .to_event({events})" if events > 0 else "make it one per datum"
            raise ValueError(
                f"the likelihood has batch shape {tuple(fn.batch_shape)}, where the data plate has one dimension: {mend}"
            )
        if y is not None:
            check_shape(y, fn.shape()[lead:])
        batch = fn.batch_shape[-1]
        check_data_dimension(x, batch)
        check_size(batch, self.num_data if y is not None else None)
        like = next(leaf for leaf in tree_leaves(outputs) if isinstance(leaf, Tensor))
        with pyro.plate("data", max(self.num_data, batch), subsample=like.new_empty(batch)):
            return pyro.sample("y", fn, obs=y)

    @abstractmethod
    def default_likelihood(
        self, outputs: Tensor, y: Tensor | None, lead: int
    ) -> tuple[dist.TorchDistribution, Tensor | None]:
        """The distribution of the targets, of batch shape ``(..., B)``, and the targets checked and in its shape.

        Args:
            outputs: of shape ``(*lead, B, ...)``.
            y: targets or None.
            lead: how many dimensions stand in front of the batch.
        """

    def _call_likelihood(self, likelihood: Likelihood, outputs: Any) -> dist.TorchDistribution:
        if isinstance(likelihood, nn.Module) and not isinstance(likelihood, pyro.nn.PyroModule):
            parameters = announced(self._label, likelihood)
            return functional_call(likelihood, parameters, (outputs,))  # type: ignore[no-any-return]
        return likelihood(outputs)


def _integer(value: Any) -> int | None:
    """An integer of Python or of another library, such as NumPy's, as one of Python; None for anything else."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _in_single_precision(outputs: Any) -> Any:
    """Outputs of autocast as they have to be summed over data: in half precision a sum has two or three digits."""
    is_half = isinstance(outputs, Tensor) and outputs.dtype in _HALF
    return outputs.float() if is_half and torch.is_autocast_enabled(outputs.device.type) else outputs


class Classifier(SupervisedModel):
    """A network whose outputs are logits, as a Pyro model.

    Outputs ``(B, C)`` with integer targets ``(B,)``; ``(B, C, *event)`` with targets ``(B, *event)`` (segmentation,
    tokens); ``(B,)`` or ``(B, 1)`` with targets 0 and 1 (binary); with ``multilabel``, ``(B, L)`` with 0 and 1 in
    ``(B, L)``.

    Args:
        net: any module; copied and left as it was. Its present weights are the initial means.
        prior: a prior, or a dict of name patterns to priors.
        num_data: N, the size of the training set.
        where: which weights are Bayesian; see :func:`~pyro_vbd.selection.select`.
        multilabel: whether each output is a yes or no of its own.
        ignore_index: the target that counts for nothing (padding, labels that nobody gave).
        likelihood: in place of all this, a function of what the network returns (a tensor, or a tuple or dict of them) to
            a Pyro distribution of batch shape ``(B,)``; if it is a module, its parameters are trained.

    Raises:
        ValueError: if ``num_data`` is no positive integer, or nothing is selected; when called, for targets of a wrong
            type, shape or range.
    """

    def __init__(
        self,
        net: nn.Module,
        prior: Prior | Mapping[str, Prior],
        num_data: int,
        where: Where = None,
        *,
        multilabel: bool = False,
        ignore_index: int | None = None,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__(net, prior, num_data, where, likelihood)
        self.multilabel, self.ignore_index = multilabel, ignore_index

    def default_likelihood(
        self, outputs: Tensor, y: Tensor | None, lead: int
    ) -> tuple[dist.TorchDistribution, Tensor | None]:
        single = outputs.dim() == lead + 1 or (outputs.dim() == lead + 2 and outputs.size(-1) == 1)
        if self.multilabel or single:
            logits = outputs if self.multilabel or outputs.dim() == lead + 1 else outputs.squeeze(-1)
            y = binary_targets(y, logits.shape[lead:], logits.dtype, self.ignore_index)
            return bernoulli(logits, self.ignore_index, logits.dim() - lead - 1), y
        logits = outputs.movedim(lead + 1, -1)
        if logits.size(-1) == 1:
            raise ValueError(
                f"outputs of shape {tuple(outputs.shape)} have one class, which is always right: for yes or no use "
                "multilabel=True with targets 0 and 1 of that shape"
            )
        y = class_targets(y, logits.shape[lead:-1], logits.size(-1), self.ignore_index)
        return categorical(logits, self.ignore_index, logits.dim() - lead - 2), y


class Regressor(SupervisedModel):
    r"""A network whose outputs are means, as a Pyro model: :math:`y \sim N(f(x; W), s^2)`.

    Outputs ``(B,)`` or ``(B, D...)`` with targets of that shape; targets ``(B,)`` fit outputs ``(B, 1)``.

    Args:
        net: any module; copied and left as it was. Its present weights are the initial means.
        prior: a prior, or a dict of name patterns to priors.
        num_data: N, the size of the training set.
        where: which weights are Bayesian; see :func:`~pyro_vbd.selection.select`.
        noise: where the standard deviation s starts, in the units of y.
        learn_noise: whether s is learned.
        likelihood: in place of the Gaussian and its s, a function of what the network returns (a tensor, or a tuple or dict
            of them) to a Pyro distribution of batch shape ``(B,)``; if it is a module, its parameters are trained.

    Raises:
        ValueError: if ``num_data`` is no positive integer, ``noise`` not positive, or nothing is selected; when called,
            for targets of another shape than the outputs.
    """

    def __init__(
        self,
        net: nn.Module,
        prior: Prior | Mapping[str, Prior],
        num_data: int,
        where: Where = None,
        *,
        noise: float = 1.0,
        learn_noise: bool = True,
        likelihood: Likelihood | None = None,
    ) -> None:
        super().__init__(net, prior, num_data, where, likelihood)
        if likelihood is None:  # else its scale would be a parameter without an effect
            reference = self.network.net.get_parameter(next(iter(self.network.priors)))  # others may be complex
            self.gaussian = GaussianLikelihood(noise, learn_noise).to(device=reference.device, dtype=reference.dtype)

    def default_likelihood(
        self, outputs: Tensor, y: Tensor | None, lead: int
    ) -> tuple[dist.TorchDistribution, Tensor | None]:
        if y is not None:
            if y.dim() == 1 and outputs.dim() == lead + 2 and outputs.size(-1) == 1:
                y = y.unsqueeze(-1)
            check_targets(y, outputs.shape[lead:])
        return self._call_likelihood(self.gaussian, outputs).to_event(outputs.dim() - lead - 1), y
