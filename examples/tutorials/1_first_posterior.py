"""A first posterior: a curve that knows where it has seen no data.

Cells marked by ``# %%`` run one by one in an editor, or all at once: ``python examples/tutorials/1_first_posterior.py``.
"""

# %% Noisy points on a wave, with a gap in the middle
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

import pyro_vbd as vbd
from examples.reporting import save_figure

torch.manual_seed(0)
x = torch.cat([torch.linspace(-3.0, -1.0, 30), torch.linspace(1.0, 3.0, 30)]).unsqueeze(1)
y = torch.sin(2.0 * x) + 0.1 * torch.randn_like(x)


# %% Any module will do: here thirty fixed bumps along x, and one linear layer that weighs them
class Bumps(nn.Module):
    """Gaussian bumps, from inputs of shape ``(B, 1)`` to ``(B, 30)``."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(-0.5 * ((x - torch.linspace(-4.5, 4.5, 30)) / 0.35).square())


net = nn.Sequential(Bumps(), nn.Linear(30, 1))

# %% The model: the net, a Gaussian prior N(0, 1) on each of its thirty weights, and Gaussian noise whose size is learned
model = vbd.Regressor(net, vbd.priors.Gaussian(1.0), num_data=len(x))

# %% The guide: q(W) = N(loc, exp(log_var)), a mean and a log variance for each weight
guide = vbd.VBDGuide(model)
print({name: tuple(value.shape) for name, value in guide.named_parameters()})

# %% Maximise the bound: expected log-likelihood minus KL(q(W) || prior), both in nats per datum
run = vbd.fit(
    model,
    guide,
    vbd.Batches(x, y, batch_size=len(x)),
    epochs=1500,
    lr=2e-2,
    lr_schedule=vbd.schedules.linear_decay(0.5),
)
print({key: round(run.history[-1][key], 3) for key in ("log_likelihood", "kl", "loss")})

# %% Predict: the mean over draws of the weights, and the variance that comes from the weights and from the noise
grid = torch.linspace(-4.5, 4.5, 300).unsqueeze(1)
prediction = vbd.predict(model, guide, grid, num_samples=500)
mean, deviation = prediction.mean.squeeze(), prediction.variance.sqrt().squeeze()

# %% Where there are no data, the weights stay as the prior has them, and the band is wide
figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
axes.fill_between(grid.squeeze(), mean - 2 * deviation, mean + 2 * deviation, alpha=0.25, label="two standard deviations")
axes.plot(grid, mean, label="mean of the prediction")
axes.plot(grid, torch.sin(2.0 * grid), "k:", linewidth=1, label="the wave")
axes.plot(x, y, ".", markersize=4, color="black", label="data")
axes.set(xlabel="x", ylabel="y", ylim=(-4, 5), title="Sure where there are data, and doubtful elsewhere")
axes.legend(loc="upper center", ncols=2, fontsize=8)
print("figure:", save_figure(figure, "out/tutorials/1_first_posterior.png"))
