import pyro.distributions as dist
import pytest
import torch

from pyro_vbd.counted import counted
from pyro_vbd.likelihoods import bernoulli, categorical

ROWS = torch.tensor([True, False, True])
PLACES = torch.eye(3, 2).bool()
BY_ROW = [[True] * 2, [False] * 2, [True] * 2]


@pytest.mark.parametrize(
    ("fn", "mask", "expected"),
    [
        (dist.Normal(torch.zeros(3), 1.0), None, [True] * 3),
        (dist.Normal(torch.zeros(3), 1.0), ROWS, ROWS.tolist()),
        (dist.Normal(torch.zeros(3), 1.0), False, [False] * 3),
        (dist.Normal(torch.zeros(3), 1.0).mask(ROWS), ~ROWS, [False] * 3),
        (dist.Normal(torch.zeros(3, 2), 1.0).to_event(1).mask(ROWS), None, BY_ROW),
        (dist.Normal(torch.zeros(2, 3), 1.0), ROWS, [ROWS.tolist()] * 2),  # the same for each row of the batch
        (dist.Normal(torch.zeros(3, 2), 1.0).mask(PLACES).to_event(1), None, PLACES.tolist()),
        (dist.MultivariateNormal(torch.zeros(3, 2), torch.eye(2)), ROWS, BY_ROW),
        (categorical(torch.zeros(3, 4), ignore_index=0), None, [False] * 3),
        (bernoulli(torch.zeros(3, 2), ignore_index=0, event_dim=1), None, [[False] * 2] * 3),
        (bernoulli(torch.zeros(3, 2), ignore_index=-1, event_dim=1).mask(ROWS), None, BY_ROW),
    ],
)  # fmt: skip
def test_what_counts(fn, mask, expected):
    site = {"fn": fn, "mask": mask, "value": torch.zeros(fn.shape())}
    assert counted(site).tolist() == expected
