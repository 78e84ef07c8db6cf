r"""Adam's update as tensor operators, to be part of a graph; its state is that of the user's ``torch.optim.Adam``.

With gradient g, at step t (Kingma and Ba 2015, arXiv:1412.6980, algorithm 1),

.. math:: m \leftarrow \beta_1 m + (1 - \beta_1) g, \quad v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \quad
          p \leftarrow p - \frac{\eta}{1 - \beta_1^t} \Big/ \Big(\sqrt{v / (1 - \beta_2^t)} + \epsilon\Big) \, m.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim import Adam, Optimizer

__all__ = ["AdamUpdate", "is_plain_adam"]


def is_plain_adam(optimizer: Optimizer, device: torch.device) -> bool:
    """Whether an optimizer is Adam as in the paper, its whole state on ``device``, with no hooks around it."""
    if type(optimizer) is not Adam or optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
        return False
    return not any(
        group["weight_decay"] or group["amsgrad"] or group["maximize"] or group["differentiable"]
        or not (group["fused"] or group["capturable"] or device.type == "cpu")  # the step counts lie on the CPU
        for group in optimizer.param_groups
    )  # fmt: skip


class AdamUpdate:
    """The update of those of ``parameters`` that a plain Adam has in its groups.

    Args:
        optimizer: whose settings, learning rates and state count.
        parameters: the tensors that a step has gradients of.
        shape: the first dimensions of all parameters, over which ``factors`` multiplies the learning rate; or ``()``.
        factors: of that shape.

    Raises:
        ValueError: if it has none of them.
    """

    def __init__(
        self, optimizer: Optimizer, parameters: Sequence[Tensor], shape: tuple[int, ...] = (), factors: Tensor | None = None
    ) -> None:
        self._optimizer, self._shape, self._factors = optimizer, shape, factors
        numbers = {id(parameter): number for number, parameter in enumerate(parameters)}
        trained = [(g, p) for g in optimizer.param_groups for p in g["params"] if id(p) in numbers]
        if not trained:
            raise ValueError("the optimizer has none of the parameters of this loss: give it loss.parameters()")
        self._groups = [group for group, _ in trained]
        self._parameters = [parameter for _, parameter in trained]
        #: Which of ``parameters`` are updated.
        self.numbers = [numbers[id(parameter)] for parameter in self._parameters]
        self._settings = [(*group["betas"], group["eps"]) for group in self._groups]
        reference = parameters[0]
        double = torch.float32 if reference.device.type == "mps" else torch.float64
        self._log_betas = [
            self._column(torch.tensor([math.log(s[i]) if s[i] else -math.inf for s in self._settings], dtype=double))
            .to(reference.device) for i in (0, 1)
        ]  # fmt: skip
        self._rates = reference.new_zeros((len(trained), *shape))
        self._present: list[float] = []

    def state(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Step counts, first and second moments, made as torch makes them where there are none yet."""
        states = [self._optimizer.state[parameter] for parameter in self._parameters]
        for group, parameter, state in zip(self._groups, self._parameters, states, strict=True):
            if not state:
                on_device = group["capturable"] or group["fused"]
                state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device if on_device else "cpu")
                state["exp_avg"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                state["exp_avg_sq"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        return tuple([state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq"))  # type: ignore[return-value]

    def settings(self) -> list[Tensor]:
        r"""Learning rates, :math:`\log\beta_1` and :math:`\log\beta_2` of each parameter; always the same three tensors."""
        present = [float(group["lr"]) for group in self._groups]
        if present != self._present:
            rates = self._column(self._rates.new_tensor(present))
            self._rates.copy_(rates if self._factors is None else rates * self._factors)
            self._present = present
        return [self._rates, *self._log_betas]

    def corrections(self, steps: Sequence[Tensor], settings: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        r""":math:`\eta / (1 - \beta_1^t)` and :math:`1/\sqrt{1 - \beta_2^t}` of each parameter, in its step count t >= 1."""
        rates, *log_betas = settings
        # in double precision: in single, 1 - 0.999**t loses four digits at t = 1. Inductor computes what holds an exp once,
        # and most other things anew for every element of a weight.
        counts = self._column(torch.stack(list(steps))).to(log_betas[0])
        first, second = (1.0 - torch.exp(counts * log_beta) for log_beta in log_betas)
        return (rates / first).to(rates), second.rsqrt().to(rates)

    def apply(
        self,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        moments: tuple[Sequence[Tensor], Sequence[Tensor]],
        corrections: tuple[Tensor, Tensor],
        where: Tensor,
    ) -> None:
        """Change parameters and moments in place where ``where`` is true, and leave them as they are elsewhere.

        Args:
            parameters: all those that there are gradients of.
            gradients: one each.
            moments: the first and the second moments, of the parameters that are updated.
            corrections: those of :meth:`corrections`.
            where: of the shape given at the start.
        """
        for place, (number, (beta1, beta2, eps)) in enumerate(zip(self.numbers, self._settings, strict=True)):
            old, gradient = parameters[number], gradients[number]
            size, root, apply = (
                value.reshape(value.shape + (1,) * (old.dim() - value.dim()))
                for value in (corrections[0][place], corrections[1][place], where)
            )
            mean, square = moments[0][place], moments[1][place]
            new_mean = mean + (1 - beta1) * (gradient - mean)
            new_square = square + (1 - beta2) * (gradient * gradient - square)
            new = old - size * new_mean / (new_square.sqrt() * root + eps)
            for tensor, value in ((mean, new_mean), (square, new_square), (old, new)):
                tensor.copy_(torch.where(apply, value, tensor))

    def _column(self, values: Tensor) -> Tensor:
        return values.reshape(-1, *(1 for _ in self._shape))
