"""A smaller network: gates that close, units that are cut out, a file of some kilobytes.

Run it whole, ``python examples/tutorials/5_a_smaller_network.py``, or cell by cell.
"""

# %% Digits and a convolutional network
import copy
from pathlib import Path

import matplotlib.pyplot as plt
import torch
from torch import nn

import pyro_vbd as vbd
from examples.data import load
from examples.reporting import save_figure

torch.manual_seed(0)
split = load("digits", Path("data"), validation=True)
net = nn.Sequential(
    nn.Conv2d(1, 20, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(20, 40, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
    nn.Flatten(), nn.Linear(160, 100), nn.ReLU(), nn.Linear(100, 10),
)  # fmt: skip

# %% A gate behind each hidden layer: a factor for each channel or unit, with a prior of its own
gated = vbd.add_gates(net, after=["0", "3", "7"])
print(gated)

# %% Only the gates are Bayesian here: what is learned is which channels and units can go
# The bound itself keeps most of them. A heavier KL asks for a smaller network: ten times as heavy costs nothing on the
# held-out digits, sixty times as heavy a great deal.
model = vbd.Classifier(gated, vbd.priors.GaussianUniform(), num_data=len(split.x), where=vbd.noise.Gate)
guide = vbd.VBDGuide(model)
run = vbd.fit(
    model,
    guide,
    vbd.Batches(split.x, split.y, batch_size=50),
    epochs=60,
    lr=3e-3,
    elbo=vbd.VBD_ELBO(kl_weight=10.0),
    kl_schedule=vbd.schedules.kl_ramp(5, 30),
    lr_schedule=vbd.schedules.linear_decay(0.5),
    callbacks=[lambda run: {"open": {site: int((value < 0).sum()) for site, value in run.guide.log_alpha().items()}}],
)

# %% Cut: what a closed gate silences is taken out of the layers on both sides of it
small, report = vbd.compress(model, guide)
print(report)


# %% Does it still read digits?
def error(network: nn.Module) -> float:
    """In per cent of the held-out digits."""
    with torch.no_grad():
        return 100.0 * (network.eval()(split.x_eval).argmax(1) != split.y_eval).float().mean().item()


plain = copy.deepcopy(net)
optimizer = torch.optim.Adam(plain.parameters(), lr=3e-3)
for _ in range(60):
    for x, y in vbd.Batches(split.x, split.y, batch_size=50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(x), y).backward()
        optimizer.step()
errors = {"the same network without gates": error(plain), "cut": error(small)}
print({name: f"{value:.1f}%" for name, value in errors.items()})

# %% Write it, and read it back
size = vbd.save_sparse(small, "out/tutorials/digits.sparse", bits=8)
again = vbd.load_sparse("out/tutorials/digits.sparse", gated)
print(f"{size:,} bytes on disk; error after reading it back {error(again):.1f}%")

# %% The gates as training goes on, and what is left
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
for site in run.history[0]["open"]:
    left.plot([record["open"][site] for record in run.history], label=site)
left.set(xlabel="epoch", ylabel="open gates", title="Channels and units that are still there")
left.legend(fontsize=8)
weights = [sum(p.numel() for p in network.parameters()) for network in (net, small)]
bars = right.bar(["before", "cut"], weights, color=["grey", "C0"])
right.bar_label(bars, [f"{n:,} parameters,\n{e:.1f}% error" for n, e in zip(weights, errors.values(), strict=True)])
right.set(ylabel="parameters", title=f"A file of {size / 1000:.1f} kB", ylim=(0, 1.25 * weights[0]))
print("figure:", save_figure(figure, "out/tutorials/5_a_smaller_network.png"))
