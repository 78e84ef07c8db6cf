import random

import numpy as np
import torch

from pyro_vbd.random_state import get_random_state, set_random_state


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
