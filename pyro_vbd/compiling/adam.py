r"""Adam's update as tensor operators, to be part of a graph; its state is that of the user's ``torch.optim.Adam``.

With gradient g, at step t (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1),

.. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
          p \leftarrow p - \frac{\eta}{1 - \beta_1^t} \Big/ \Big(\sqrt{v / (1 - \beta_2^t)} + \epsilon\Big) \, m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer
from torch.optim.optimizer import _global_optimizer_post_hooks, _global_optimizer_pre_hooks

__all__ = ["AdamUpdate", "is_plain_adam"]


def is_plain_adam(optimizer: Optimizer, device: torch.device) -> bool:
    """Whether an optimizer is Adam as in the paper, of real numbers, its state on ``device``, with no hooks around it."""
    hooks = optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks
    if type(optimizer) is not Adam or any((*hooks, _global_optimizer_pre_hooks, _global_optimizer_post_hooks)):
        return False
    return not any(
        group["weight_decay"] or group["amsgrad"] or group["maximize"] or group["differentiable"]
        or not (group["fused"] or group["capturable"] or device.type == "cpu")  # the step counts lie on the CPU
        or any(parameter.is_complex() for parameter in group["params"])  # two real ones, to torch
        for group in optimizer.param_groups
    )  # fmt: skip


class AdamUpdate:
    """The update of those of ``parameters`` that a plain Adam has in its groups.

    Args:
        optimizer: whose settings, learning rates and state count.
        parameters: the tensors that a step has gradients of.

    Raises:
        ValueError: if it has none of them.
    """

    def __init__(self, optimizer: Optimizer, parameters: Sequence[Tensor]) -> None:
        self._optimizer = optimizer
        numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
        groups = enumerate(optimizer.param_groups)
        trained = [(place, p) for place, group in groups for p in group["params"] if id(p) in numbers]
        if not trained:
            raise ValueError("the optimizer has none of the parameters of this loss: give it loss.parameters()")
        self._places = [place for place, _ in trained]
        self._parameters = [parameter for _, parameter in trained]
        #: Which of ``parameters`` are updated.
        self.numbers = [numbers[id(parameter)] for parameter in self._parameters]
        #: Beta_1, beta_2 and epsilon of each, which are part of a graph.
        self.decays = [(*group["betas"], group["eps"]) for group in self._groups()]
        device = parameters[0].device
        double = torch.float32 if device.type == "mps" else torch.float64
        logs = [[math.log(setting[i]) if setting[i] else -math.inf for setting in self.decays] for i in (0, 1)]
        self._log_betas = [torch.tensor(values, dtype=double, device=device) for values in logs]
        self._rates = torch.zeros(len(trained), dtype=double, device=device)
        self._present: list[float] = []

    def state(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Step counts, first and second moments, made as torch makes them where there are none yet."""
        states = [self._optimizer.state[parameter] for parameter in self._parameters]
        for group, parameter, state in zip(self._groups(), self._parameters, states, strict=True):
            if not state:
                on_device = group["capturable"] or group["fused"]
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device if on_device else "cpu")
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return tuple([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))  # type: ignore[return-value]

    def settings(self) -> list[Tensor]:
        r"""Learning rates, :math:`\log\beta_1` and :math:`\log\beta_2` of each parameter; always the same three tensors."""
        present = [float(group["lr"]) for group in self._groups()]
        if present != self._present:
            self._rates.copy_(torch.tensor(present, dtype=torch.float64))
            self._present = present
        return [self._rates, *self._log_betas]

    def apply(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        state: tuple[Sequence[Tensor], Sequence[Tensor], Sequence[Tensor]],
        settings: Sequence[Tensor],
        healthy: Tensor,
    ) -> None:
        """Change parameters and state in place if ``healthy``, one boolean, is true, and leave them as they are if not.

        Args:
            parameters: all those that there are gradients of.
            gradients: one each.
            state: that of :meth:`state`.
            settings: those of :meth:`settings`.
            healthy: whether to.
        """
        steps, means, squares = state
        rates, log_beta1, log_beta2 = settings
        # in double precision: in single, 1 - 0.999**t loses four digits at t = 1. Inductor computes what holds an exp once,
        # and most other things anew for every element of a weight.
        counts = torch.stack(list(steps)).to(rates) + 1.0
        sizes = (rates / (1.0 - torch.exp(counts * log_beta1))).to(parameters[0])
        roots = (1.0 - torch.exp(counts * log_beta2)).rsqrt().to(parameters[0])
        for place, (number, (beta1, beta2, eps)) in enumerate(zip(self.numbers, self.decays, strict=True)):
            old, gradient, mean, square = parameters[number], gradients[number], means[place], squares[place]
            new_mean = mean + (1 - beta1) * (gradient - mean)
            new_square = square + (1 - beta2) * (gradient * gradient - square)
            new = old - sizes[place] * new_mean / (new_square.sqrt() * roots[place] + eps)
            for tensor, value in ((mean, new_mean), (square, new_square), (old, new)):
                tensor.copy_(torch.where(healthy, value, tensor))
        for count in steps:
            count.add_(healthy)

    def _groups(self) -> list[dict[str, Any]]:
        """The present group of each parameter: ``load_state_dict`` makes new ones."""
        return [self._optimizer.param_groups[place] for place in self._places]
