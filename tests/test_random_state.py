import random

import numpy as np
import torch

from pyro_vbd.random_state import forked_random_state, get_random_state, set_random_state


def draws():
    legacy = np.random.rand(), np.random.randn()  # noqa: NPY002  (the state that pyro.set_rng_seed sets)
    return random.random(), legacy, torch.rand(3, device="cpu").tolist(), random.gauss(0, 1)


def test_all_generators_go_back(tmp_path):
    draws()  # leaves a second Gaussian in store
    state = get_random_state()
    torch.save(state, tmp_path / "state")
    first = draws()
    set_random_state(torch.load(tmp_path / "state", weights_only=True))
    assert draws() == first
    assert draws() != first


def test_cuda_goes_back(device):
    state = get_random_state()
    first = torch.rand(3, device=device)
    set_random_state(state)
    assert torch.equal(torch.rand(3, device=device), first)


def test_a_fork_leaves_the_states_of_all_devices(device, monkeypatch, recwarn):
    first = torch.rand(3, device=device)
    state = get_random_state()
    with forked_random_state():
        second = torch.rand(3, device=device)
    assert not torch.equal(first, second)
    assert torch.equal(torch.rand(3, device=device), second)
    set_random_state(state)

    states, zero = {0: "zero", 1: "one"}, torch.zeros(())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(states))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda index=0: states[index])
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda value, index=0: states.update({index: value}))
    with forked_random_state():
        states.update(dict.fromkeys(states, zero))
    assert states == {0: "zero", 1: "one"}
    assert not recwarn.list
