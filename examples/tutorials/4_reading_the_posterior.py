"""Reading the posterior with ArviZ: draws, how far the guide is from the posterior, and what the model would have said.

Run it whole, ``python examples/tutorials/4_reading_the_posterior.py``, or cell by cell.
"""

# %% Patients of the diabetes study: ten measurements, and how the disease went on in a year
import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.datasets import load_diabetes
from torch import nn

import pyro_vbd as vbd
from examples.reporting import save_figure

torch.manual_seed(0)
table = load_diabetes()
x = torch.tensor(table.data / table.data.std(0), dtype=torch.float32)
y = torch.tensor((table.target - table.target.mean()) / table.target.std(), dtype=torch.float32).unsqueeze(1)

# %% A linear model under the regularised horseshoe: its slopes are the weights of one layer
model = vbd.Regressor(nn.Linear(10, 1), vbd.priors.RegularizedHorseshoe(), num_data=len(x), noise=0.8)
guide = vbd.VBDGuide(model)
vbd.fit(
    model, guide, vbd.Batches(x, y, batch_size=len(x)), epochs=1500, lr=1e-2, lr_schedule=vbd.schedules.linear_decay(0.5)
)

# %% Draws of the guide in ArviZ's container: of the slopes, the predictions and the pointwise likelihoods
# Weights are left out unless they are asked for: a network may have millions.
data = vbd.to_arviz(model, guide, x, y, num_samples=1000, sites="weight")
print(data)
slopes = np.asarray(data.posterior["weight"]).reshape(-1, 10)

# %% How far is the guide from the posterior? Pareto's k of the importance weights: below 0.5 it is close to it
k = vbd.pareto_k(model, guide, x, y)
print(f"Pareto k = {k:.2f}")

# %% The slopes, and a posterior predictive check: do patients drawn from the model look like the patients?
# Not quite: theirs are skewed, and those of the model are not. A gamma likelihood would be the next thing to try.
predicted = np.asarray(data.posterior_predictive["y"]).reshape(1000, -1)
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
order = np.argsort(np.abs(slopes.mean(0)))
left.axvline(0.0, color="grey", linewidth=0.5)
low, middle, high = np.quantile(slopes[:, order], [0.025, 0.5, 0.975], axis=0)
left.errorbar(middle, range(10), xerr=[middle - low, high - middle], fmt="o")
left.set_yticks(range(10), [table.feature_names[i] for i in order])
left.set(xlabel="slope, in standard deviations: median and 95%", title="Which measurements matter")
bins = np.linspace(-3.0, 3.5, 27)
for row in predicted[:40]:
    right.hist(row, bins=bins, histtype="step", color="C0", alpha=0.2)
right.hist(y.flatten().numpy(), bins=bins, histtype="step", color="black", linewidth=2, label="the patients")
right.plot([], [], color="C0", label="40 draws of the model")
right.set(
    xlabel="progression, standardised", ylabel="patients", title=f"Would the model have said so? (Pareto k = {k:.2f})"
)
right.legend(fontsize=8)
print("figure:", save_figure(figure, "out/tutorials/4_reading_the_posterior.png"))
