"""Which weights matter: dropout rates that are learned, and what is left when the rest goes.

Run it whole, ``python examples/tutorials/2_which_weights_matter.py``, or cell by cell.
"""

# %% Digits of 8x8 pixels, and a network that is far too large for them
from pathlib import Path

import matplotlib.pyplot as plt
import torch

import pyro_vbd as vbd
from examples.data import load
from examples.reporting import save_figure
from models import mlp

torch.manual_seed(0)
split = load("digits", Path("data"), validation=True)  # the test set stays unseen; a sixth of the training set stands in
net = mlp(64, (300, 100), 10)

# %% The prior of the paper: W ~ N(0, gamma), gamma ~ Uniform(0, 1000), one gamma for each weight
# At the best gamma the KL of a weight is 0.5 log(1 + 1/alpha), where alpha = variance / mean**2 is its dropout rate:
# what the data do not need goes to alpha = infinity, where it costs nothing.
model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=len(split.x))
guide = vbd.VBDGuide(model)

# %% Train, and watch the weights go
run = vbd.fit(
    model,
    guide,
    vbd.Batches(split.x, split.y, batch_size=50),
    epochs=100,
    lr=2e-3,
    kl_schedule=vbd.schedules.kl_ramp(10, 80),
    lr_schedule=vbd.schedules.linear_decay(0.5),
    callbacks=[vbd.monitors.sparsity()],
)

# %% log alpha of every weight: two heaps, and the threshold between them
log_alpha = torch.cat([value.flatten() for value in guide.log_alpha().values()])
beyond = vbd.sparsity(guide, 3.0)
print(f"{beyond:.1%} of {log_alpha.numel():,} weights have log alpha > 3: noise of 4.5 times the mean, or more")


# %% The network at its means, without the weights beyond each threshold
def error(threshold: float) -> float:
    """In per cent of the held-out digits."""
    plain = vbd.point_network(model, guide, threshold).eval()
    with torch.no_grad():
        return 100.0 * (plain(split.x_eval).argmax(1) != split.y_eval).float().mean().item()


thresholds = torch.linspace(-8.0, 10.0, 37).tolist()
errors = [error(threshold) for threshold in thresholds]
kept = [100.0 * (1.0 - vbd.sparsity(guide, threshold)) for threshold in thresholds]

# %% All of it in one picture
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
left.plot([100 * record["sparsity"] for record in run.history])
left.set(xlabel="epoch", ylabel="weights with log alpha > 3, %", title="The KL comes on, and weights go", ylim=(0, 100))
middle.hist(log_alpha.clamp(-8, 15).numpy(), bins=80)
middle.axvline(3.0, color="black", linewidth=1, linestyle=":")
middle.set(xlabel="log alpha", ylabel="weights", title="What the data ask for is on the left", yscale="log")
right.plot(kept, errors, ".-")
right.set(xlabel="weights kept, %", ylabel="held-out error, %", xscale="log", ylim=(0, 30), title="What removal costs")
print("figure:", save_figure(figure, "out/tutorials/2_which_weights_matter.png"))
