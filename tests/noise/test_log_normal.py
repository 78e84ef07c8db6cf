import math

import pytest
import torch
from torch import nn

from pyro_vbd.noise import LogNormalGate

CASES = [(-1.0, -1.0), (-3.0, 0.5), (0.0, -5.0), (0.3, -2.0), (-15.0, 2.0), (-19.0, 0.0), (5.0, 4.0)]


def gate(loc, log_scale, **kwargs):
    made = LogNormalGate(1, **kwargs).double()
    with torch.no_grad():
        made.loc.fill_(loc)
        made.log_scale.fill_(log_scale)
    return made


def by_quadrature(loc, log_scale):
    """KL to U(-20, 0), E[theta], E[theta]/sd(theta), from the density of log theta on a grid."""
    # around the part of the interval that holds the mass
    scale = math.exp(log_scale)
    centre = min(max(loc, -20.0), 0.0)
    low, high = max(-20.0, centre - 40 * scale), min(0.0, centre + 40 * scale)
    t = torch.linspace(low, high, 2_000_001, dtype=torch.float64)
    log_q = -0.5 * ((t - loc) / scale) ** 2
    log_q = log_q - log_q.max()
    log_q = log_q - torch.trapezoid(log_q.exp(), t).log()
    q = log_q.exp()
    mean, square = torch.trapezoid(q * t.exp(), t), torch.trapezoid(q * (2 * t).exp(), t)
    kl = torch.trapezoid(q * log_q, t) + math.log(20.0)
    return float(kl), float(mean), float(mean / (square - mean**2).sqrt())


@pytest.mark.parametrize(("loc", "log_scale"), CASES)
def test_kl_mean_and_signal_to_noise(loc, log_scale):
    made = gate(loc, log_scale)
    kl, mean, ratio = by_quadrature(loc, log_scale)
    assert made.penalty().item() == pytest.approx(kl, abs=1e-5)
    assert made.mean().item() == pytest.approx(mean, rel=1e-5)
    assert made.signal_to_noise().item() == pytest.approx(ratio, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("loc", "log_scale"), CASES)
def test_draws_have_the_moments(loc, log_scale, dtype):
    draws = gate(loc, log_scale).to(dtype).sample(100_000).detach().double()
    assert ((draws > 0) & (draws <= 1)).all()
    _, mean, ratio = by_quadrature(loc, log_scale)
    # 1e-5 of each tail is cut off
    assert abs(float(draws.mean()) - mean) < 4 * mean / ratio / math.sqrt(len(draws)) + 1e-5


def test_a_unit_far_above_the_interval_draws_1_throughout():
    assert (gate(5.0, -2.0).sample(1000) == 1.0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_knows_the_tails(dtype):
    made = LogNormalGate(50).to(dtype)
    draws = made.sample(200)
    assert draws.dtype == dtype
    assert float(draws.detach().min()) > 0.9
    draws.float().sum().backward()
    assert made.loc.grad.isfinite().all()
    assert made.log_scale.grad.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_an_input_of_half_precision_stays_one(training):
    assert LogNormalGate(3).train(training)(torch.ones(2, 3, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_counts_are_multiplied_as_numbers():
    """A factor below 1 that were made an integer would be 0."""
    gate, x = LogNormalGate(3).eval(), torch.arange(6).reshape(2, 3)
    torch.testing.assert_close(gate(x), gate(x.float()))


def test_a_gate_between_noise_and_signal():
    low, high = gate(-3.0, 2.0), gate(-0.1, -3.0)
    assert low.signal_to_noise() < 1 < high.signal_to_noise()
    assert (low.mask().item(), high.mask().item()) == (0.0, 1.0)
    x = torch.ones(4, 1, dtype=torch.float64)
    assert torch.equal(low.eval()(x), torch.zeros_like(x))
    torch.testing.assert_close(high.eval()(x), high.mean().expand(4, 1).detach())


def test_evaluation_uses_the_threshold():
    made = gate(-3.0, 2.0, threshold=0.0)
    assert made.eval()(torch.ones(1, 1)) > 0


def test_channels_and_data_have_noise_of_their_own():
    x = torch.ones(5, 3, 4, 4)
    made = LogNormalGate(3, init_log_scale=0.0)
    out = made(x)
    assert torch.equal(out.amin((2, 3)), out.amax((2, 3)))
    assert out[:, :, 0, 0].unique().numel() == 15


def test_starts_as_good_as_open():
    out = LogNormalGate(1000)(torch.ones(10, 1000)).detach()
    assert 0.99 < float(out.mean()) <= 1


@pytest.mark.parametrize(("loc", "log_scale"), [(-30.0, -30.0), (9.0, -30.0), (9.0, 9.0), (-30.0, 9.0), (0.0, -30.0)])
def test_finite_at_the_ends(loc, log_scale):
    made = gate(loc, log_scale).float()
    (made.penalty() + made(torch.ones(3, 1)).sum()).backward()
    for value in (made.penalty(), made.mean(), made.signal_to_noise(), made.loc.grad, made.log_scale.grad):
        assert value.isfinite().all()


def test_gradients_by_differences():
    made = gate(-2.0, 0.3)

    def kl(loc, log_scale):
        values = {"gate.loc": loc, "gate.log_scale": log_scale}
        return torch.func.functional_call(Penalty(LogNormalGate(1).double()), values, ())

    class Penalty(nn.Module):
        def __init__(self, gate):
            super().__init__()
            self.gate = gate

        def forward(self):
            return self.gate.penalty()

    assert torch.autograd.gradcheck(kl, (made.loc, made.log_scale))


@pytest.mark.parametrize(("size", "dim"), [(0, 1), (-2, 1), (3, 0)])
def test_wrong_sizes_are_refused(size, dim):
    with pytest.raises(ValueError, match=rf"LogNormalGate\(size={size}, dim={dim}\)"):
        LogNormalGate(size, dim)


@pytest.mark.parametrize("shape", [(4, 3), (3,), (4, 1), (4, 1, 5)])
def test_an_input_that_would_broadcast_is_refused(shape):
    """One channel against five noises is five channels: a plausible wrong shape."""
    with pytest.raises(ValueError, match="a gate of 5 in dimension 1 got an input of shape"):
        LogNormalGate(5)(torch.ones(shape))
