"""Each family with its defaults on real data: scikit-learn's digits, against the same network without a prior."""

from functools import cache

import pyro
import pytest
import torch
import torch.nn.functional as F

import pyro_vbd as vbd
from models import mlp
from tests.digits import digits

FAMILIES = [
    vbd.priors.BetaPrime,
    vbd.priors.GammaPrecision,
    vbd.priors.GaussianUniform,
    vbd.priors.GeneralizedInverseGaussian,
    vbd.priors.HalfNormal,
    vbd.priors.HalfStudentT,
    vbd.priors.Horseshoe,
    vbd.priors.Jeffreys,
    vbd.priors.Laplace,
    vbd.priors.NormalGamma,
    vbd.priors.PCPrior,
    vbd.priors.RegularizedHorseshoe,
    vbd.priors.SpikeAndSlab,
    vbd.priors.StudentT,
]
SEEDS, EPOCHS, LR = 3, 100, 3e-3


def batches(x, y):
    return vbd.Batches(x, y, batch_size=50)


@cache
def deterministic_error(device):
    """In per cent, the mean over seeds."""
    x, y, x_test, y_test = digits(device)
    errors = []
    for seed in range(SEEDS):
        pyro.set_rng_seed(seed)
        net = mlp(64, (100, 100), 10).to(device)
        optimizer = torch.optim.Adam(net.parameters(), LR, fused=True)
        decay = vbd.schedules.linear_decay(0.5)
        for epoch in range(EPOCHS):
            optimizer.param_groups[0]["lr"] = LR * decay(epoch, EPOCHS)
            for x_batch, y_batch in batches(x, y):
                optimizer.zero_grad()
                F.cross_entropy(net(x_batch), y_batch).backward()
                optimizer.step()
        errors.append(100 * float((net(x_test).argmax(-1) != y_test).float().mean()))
    return sum(errors) / SEEDS


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__)
def test_digits_are_learned_as_well_as_without_a_prior(family, device):
    """Within 1.5 points, the mean over seeds, with a slow warm-up of the KL (chosen on validation data)."""
    x, y, x_test, y_test = digits(device)
    errors = []
    for seed in range(SEEDS):
        pyro.set_rng_seed(seed)
        model = vbd.Classifier(mlp(64, (100, 100), 10), family(), num_data=len(x)).to(device)
        guide = vbd.VBDGuide(model)
        schedules = {
            "kl_schedule": vbd.schedules.kl_ramp(EPOCHS // 10, 4 * EPOCHS // 5),
            "lr_schedule": vbd.schedules.linear_decay(0.5),
        }
        vbd.fit(model, guide, batches(x, y), epochs=EPOCHS, lr=LR, progress=False, **schedules)
        probs = vbd.predict(model, guide, x_test, num_samples=30).probs
        errors.append(100 * float((probs.argmax(-1) != y_test).float().mean()))
    mean, reference = sum(errors) / SEEDS, deterministic_error(device)
    print(f"{family.__name__}: {mean:.2f}% error, {reference:.2f}% without a prior")
    assert mean < reference + 1.5
