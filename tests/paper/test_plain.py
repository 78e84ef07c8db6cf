"""Training without a posterior: rates, steps, records, and what a run that was killed goes on with."""

import copy

import pytest
import torch
from torch import nn

from examples.paper.cell import Cell, Job
from examples.paper.plain import adam, train
from examples.paper.splits import Splits
from pyro_vbd.training.schedules import linear_decay


def job(folder, held_out=False, tick=lambda epochs: None):
    generator = torch.Generator(device="cpu").manual_seed(0)
    x = torch.randn(50, 6, generator=generator, device="cpu").to(torch.get_default_device())
    y = x[:, :3].argmax(1)
    data = Splits(x[:25], y[:25], x[25:], y[25:], *((x[25:35], y[25:35]) if held_out else ()))
    return Job(Cell("toy", "a", "1", 0), {}, data, folder, tick=tick)


def network():
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 3))


def sgd(net):
    return torch.optim.SGD([{"params": net[0].parameters()}, {"params": net[3].parameters(), "lr": 0.2}], 0.1, 0.9)


def trained(net, made, epochs=4, **settings):
    torch.manual_seed(1)
    return train(net, made, phase="fit", epochs=epochs, optimizer=sgd, batch_size=10, **settings)


def test_every_group_has_its_rate_and_steps_are_counted_on(tmp_path):
    made, seen = [], []

    def optimizer(net):
        made.append(sgd(net))
        return made[0]

    def after_step(step):
        seen.append((step, [group["lr"] for group in made[0].param_groups]))

    train(network(), job(tmp_path), phase="fit", epochs=4, optimizer=optimizer, batch_size=10, after_step=after_step,
          lr_schedule=linear_decay())  # fmt: skip
    assert [step for step, _ in seen] == list(range(12))
    assert [rates for _, rates in seen[::3]] == [pytest.approx([0.1 * part, 0.2 * part]) for part in (1, 0.75, 0.5, 0.25)]


def test_a_record_holds_the_mean_loss_of_its_steps_and_what_was_measured(tmp_path):
    losses, modes, net = [], [], network().eval()

    def loss(net, x, y):
        modes.append(net.training)
        value = nn.functional.cross_entropy(net(x), y)
        losses.append(value.item())
        return value

    def measure(net, x, y):
        return {"error": float(len(x))}

    first, second = trained(net, job(tmp_path, held_out=True), 2, loss=loss, measure=measure)
    assert (first["loss"], second["loss"]) == pytest.approx((sum(losses[:3]) / 3, sum(losses[3:]) / 3))
    assert first["held_out"] == {"error": 10.0}
    assert first["tested"] == {"error": 25.0}
    assert all(modes)
    assert "tested" not in trained(network(), job(tmp_path / "other"), 1, measure=measure)[0]


def test_a_run_goes_on_with_its_momentum_noise_and_rates(tmp_path):
    initial, ends = network(), []
    for name, stops in (("whole", [4]), ("stopped", [1, 3, 4])):
        for epochs in stops:
            net, ticks = copy.deepcopy(initial), []
            history = trained(net, job(tmp_path / name, tick=ticks.append), epochs, lr_schedule=lambda e, _: 1 / (1 + e))
            assert sum(ticks) == epochs
        ends.append((net.state_dict(), [record["loss"] for record in history]))
    assert ends[0][1] == ends[1][1]
    torch.testing.assert_close(ends[0][0], ends[1][0], rtol=0, atol=0)
    before = copy.deepcopy(net.state_dict())
    assert [record["loss"] for record in trained(net, job(tmp_path / "whole"))] == ends[0][1]  # it has ended
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_epoch(tmp_path):
    def loss(net, x, y):
        return nn.functional.cross_entropy(net(x), y) * (1.0 if next(calls) < 4 else float("nan"))

    calls = iter(range(100))
    with pytest.raises(FloatingPointError, match=r"the loss of toy a 1 seed 0 is nan in epoch 1: lower"):
        trained(network(), job(tmp_path), loss=loss)
    assert len(trained(network(), job(tmp_path), 1)) == 1


def test_adam_decays_weights_where_it_is_asked_to():
    for decay in (0.0, 0.1):
        (group,) = adam(0.01, decay)(network()).param_groups
        assert (group["lr"], group["weight_decay"], len(group["params"])) == (0.01, decay, 6)
