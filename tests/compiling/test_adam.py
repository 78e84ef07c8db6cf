"""Adam's update as operators against torch's own, on the same gradients and state."""

import copy

import pytest
import torch
from torch import nn
from torch.optim import optimizer as torch_optimizer
from torch.testing import assert_close

from pyro_vbd.compiling.adam import AdamUpdate, is_plain_adam


def make(dtype=torch.float32):
    return [nn.Parameter(torch.randn(4, 3, dtype=dtype)), nn.Parameter(torch.randn(3, dtype=dtype))]


def update(optimizer, parameters, gradients, healthy=True):
    adam = AdamUpdate(optimizer, parameters)
    with torch.no_grad():
        adam.apply(parameters, gradients, adam.state(), adam.settings(), torch.tensor(healthy))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("options", [{}, {"betas": (0.0, 0.5), "eps": 1e-3}, {"fused": True}, {"foreach": True}], ids=str)
def test_equals_torchs_adam_and_shares_its_state(dtype, options):
    ours, theirs = (copy.deepcopy(initial) for initial in [make(dtype)] * 2)
    optimizers = [torch.optim.Adam(parameters, lr=0.1, **options) for parameters in (ours, theirs)]
    exact = {"rtol": 1e-5, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    for step in range(12):
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + step)
        gradients = [torch.randn_like(parameter) * 10.0 ** (step % 5 - 2) for parameter in ours]
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizers[1].step()
        if step % 4 == 3:  # torch's goes on with this state, and the other way round
            for parameter, gradient in zip(ours, gradients, strict=True):
                parameter.grad = gradient.clone()
            optimizers[0].step()
        else:
            update(optimizers[0], ours, gradients)
        assert_close(ours, theirs, **exact)
    states = [optimizer.state_dict()["state"] for optimizer in optimizers]
    assert states[0].keys() == states[1].keys()
    for number in states[0]:
        assert_close(states[0][number], states[1][number], **exact)


def test_groups_have_settings_of_their_own():
    ours, theirs = (copy.deepcopy(initial) for initial in [make()] * 2)
    gradients = [torch.randn_like(parameter) for parameter in ours]
    for parameters in (ours, theirs):
        groups = [{"params": parameters[:1]}, {"params": parameters[1:], "lr": 0.5, "betas": (0.5, 0.9)}]
        optimizer = torch.optim.Adam(groups, lr=0.01)
        if parameters is ours:
            update(optimizer, parameters, gradients)
        else:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimizer.step()
    assert_close(ours, theirs)


def test_a_rate_of_any_group_may_change_between_updates():
    parameters = make()
    groups = [{"params": [parameter], "lr": 0.1} for parameter in parameters]
    optimizer = torch.optim.Adam(groups)
    adam = AdamUpdate(optimizer, parameters)
    assert adam.settings()[0].tolist() == [0.1, 0.1]
    optimizer.param_groups[1]["lr"] = 0.5
    assert adam.settings()[0].tolist() == [0.1, 0.5]
    optimizer.load_state_dict(optimizer.state_dict())  # which makes the groups anew
    optimizer.param_groups[0]["lr"] = 0.2
    assert adam.settings()[0].tolist() == [0.2, 0.5]


def test_leaves_alone_what_the_optimizer_does_not_have():
    parameters = make()
    before = copy.deepcopy(parameters)
    optimizer = torch.optim.Adam([parameters[1], nn.Parameter(torch.ones(2))])
    assert AdamUpdate(optimizer, parameters).numbers == [1]
    update(optimizer, parameters, [torch.ones(4, 3), torch.ones(3)])
    assert torch.equal(parameters[0], before[0])
    assert not torch.equal(parameters[1], before[1])


def test_changes_nothing_at_a_loss_that_is_not_finite():
    parameters = make()
    optimizer = torch.optim.Adam(parameters)
    update(optimizer, parameters, [torch.ones(4, 3), torch.ones(3)])
    before = copy.deepcopy((parameters, optimizer.state_dict()["state"]))
    update(optimizer, parameters, [torch.full((4, 3), torch.nan), torch.ones(3)], healthy=False)
    assert_close((parameters, optimizer.state_dict()["state"]), before, rtol=0, atol=0)


@pytest.mark.parametrize(("option", "place"), [("capturable", "meta"), ("foreach", "cpu")])
def test_step_counts_lie_where_torchs_do(option, place):
    parameter = nn.Parameter(torch.zeros(2, device="meta"))
    steps, *_ = AdamUpdate(torch.optim.Adam([parameter], **{option: True}), [parameter]).state()
    assert steps[0].device.type == place


def test_an_optimizer_of_something_else_is_refused():
    with pytest.raises(ValueError, match="none of the parameters of this loss"):
        AdamUpdate(torch.optim.Adam(make()), make())


@pytest.mark.parametrize(
    "options", [{"weight_decay": 0.1}, {"amsgrad": True}, {"maximize": True}, {"differentiable": True}], ids=str
)
def test_other_adams_are_told_apart(options):
    assert not is_plain_adam(torch.optim.Adam(make(), **options), torch.device("cpu"))


def test_what_is_plain():
    device = torch.device("cpu")
    assert is_plain_adam(torch.optim.Adam(make()), device)
    assert not is_plain_adam(torch.optim.AdamW(make()), device)
    assert not is_plain_adam(torch.optim.SGD(make()), device)
    for hook in ("pre", "post"):
        hooked = torch.optim.Adam(make())
        getattr(hooked, f"register_step_{hook}_hook")(lambda *_: None)
        assert not is_plain_adam(hooked, device)
        handle = getattr(torch_optimizer, f"register_optimizer_step_{hook}_hook")(lambda *_: None)  # of all optimizers
        assert not is_plain_adam(torch.optim.Adam(make()), device)
        handle.remove()
    assert not is_plain_adam(torch.optim.Adam(make(torch.complex64)), device)
    groups = [{"params": [parameter], "weight_decay": decay} for parameter, decay in zip(make(), (0.0, 0.1), strict=True)]
    assert not is_plain_adam(torch.optim.Adam(groups), device)
    cuda = torch.device("cuda")  # an unfused Adam counts its steps on the CPU
    assert not is_plain_adam(torch.optim.Adam(make()), cuda)
    assert is_plain_adam(torch.optim.Adam(make(), capturable=True), cuda)
    assert is_plain_adam(torch.optim.Adam(make(), fused=True), cuda)
