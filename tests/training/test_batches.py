import numpy as np
import pytest
import torch

import pyro_vbd as vbd


@pytest.mark.parametrize("shuffle", [True, False])
def test_every_datum_comes_once_a_pass_with_its_target(shuffle):
    x = torch.arange(23).float()
    batches = vbd.Batches(x, 10 * x, batch_size=5, shuffle=shuffle)
    for _ in range(2):
        parts = list(batches)
        assert len(parts) == len(batches) == 5
        seen, targets = (torch.cat(column) for column in zip(*parts, strict=True))
        assert torch.equal(seen.sort().values, x)
        assert torch.equal(targets, 10 * seen)
        assert torch.equal(seen, x) != shuffle


def test_order_follows_the_random_state_and_changes_between_passes():
    batches = vbd.Batches(torch.arange(50), batch_size=50)
    torch.manual_seed(1)
    first, second = next(iter(batches))[0], next(iter(batches))[0]
    torch.manual_seed(1)
    assert torch.equal(first, next(iter(batches))[0])
    assert not torch.equal(first, second)


def test_batches_stay_on_the_device_and_the_host_waits_once_a_pass(device):
    x, y = torch.rand(60, 2, 3, device=device), torch.arange(60, device=device)
    passes = iter(vbd.Batches(x, y, batch_size=7))
    batches = [next(passes)]
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode("error")
    try:
        batches += passes
    finally:
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
    assert {part.device for batch in batches for part in batch} == {x.device}
    order = torch.cat([part for _, part in batches])
    assert torch.equal(torch.cat([part for part, _ in batches]), x[order])


def test_the_order_of_a_pass_lies_where_the_data_do():
    batches = vbd.Batches(torch.empty(6, 2, device="meta"), batch_size=4)
    assert batches.order().device.type == "meta"
    assert [x.shape for (x,) in batches] == [(4, 2), (2, 2)]


def test_bad_input():
    with pytest.raises(ValueError, match="one length above 0"):
        vbd.Batches(torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match="one length above 0"):
        vbd.Batches(torch.zeros(0, 2))
    with pytest.raises(ValueError, match="batch_size=0"):
        vbd.Batches(torch.zeros(3), batch_size=0)
    with pytest.raises(ValueError, match="one length above 0"):
        vbd.Batches(torch.zeros(()))
    with pytest.raises(TypeError, match=r"Batches was given ndarray, list: pass tensors"):
        vbd.Batches(np.zeros(3), torch.zeros(3), [0, 1, 2])
