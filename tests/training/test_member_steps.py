import math

import pyro
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.training.member_steps import MemberSteps
from pyro_vbd.training.run import Fit
from tests.member_runs import CLASSES, X, copies, data, members


def runs_of(models, guides, optimizer=torch.optim.Adam, **settings):
    runs = []
    for model, guide in zip(models, guides, strict=True):
        elbo = vbd.VBD_ELBO()
        parameters = {name: p for name, p in elbo(model, guide).named_parameters() if p.requires_grad}
        adam = optimizer(parameters.values(), **{"lr": 1e-2, **settings})
        runs.append(Fit(model.train(), guide.train(), elbo, parameters, adam))
    return runs


def steps_of(models, guides, **settings):
    runs = runs_of(models, guides, **settings)
    return runs, MemberSteps(runs, False, lambda words: None)


def reports(steps, count, batch):
    with steps.training():
        return torch.stack([steps(batch)[0] for _ in range(count)])


def test_noise_is_each_members_own_and_that_of_single_runs():
    models, guides = members(1, lambda: nn.Linear(X, CLASSES))
    guides[0].posteriors["q/weight"].log_var.data.fill_(-1.0)
    twins = copies(models, guides)
    _, steps = steps_of(models + twins[0], guides + twins[1], lr=0.0)
    batch, count = data(), 800
    found = reports(steps, count, batch)[..., 1].double()  # log-likelihoods
    elbo = vbd.VBD_ELBO()
    single = torch.tensor([elbo.terms(models[0], guides[0], *batch).log_likelihood.item() for _ in range(count)]).double()
    spread = single.std()
    assert spread > 0.1
    correlation = torch.corrcoef(found.T)[0, 1]
    assert abs(correlation) * math.sqrt(count) < 4
    for member in found.T:
        assert abs(member.mean() - single.mean()) / (spread * math.sqrt(2 / count)) < 4
        # a sample variance of normal numbers has a relative variance of 2/n
        assert abs((member.var() / single.var()).log()) / math.sqrt(4 / count) < 4


def test_labels_are_checked_where_they_are_new():
    _, steps = steps_of(*members(2, lambda: nn.Linear(X, CLASSES)))
    x, y = data(10)
    with steps.training():
        steps((x, y))
        with pytest.raises(ValueError, match="class labels"):
            steps((x, y + CLASSES))
        with pyro.validation_enabled(False):
            steps((x, y))


def test_steps_of_other_shapes_go_on_from_the_same_tensors():
    models, guides = members(2)
    runs, steps = steps_of(models, guides)
    with steps.training():
        for size in (10, 5, 10, 5):
            steps(data(size))
        assert len(steps._steps) == 2
    counts = {int(state["step"]) for run in runs for state in run.optimizer.state.values()}
    assert counts == {4}
    assert int(models[1].network.net[1].num_batches_tracked) == 4


def test_numbers_that_have_changed_make_another_graph():
    models, guides = members(2, lambda: nn.Sequential(nn.Linear(X, CLASSES), nn.Dropout(0.5)))
    _, steps = steps_of(models, guides, lr=0.0)
    before = reports(steps, 200, data(10))[..., 1].var(0)
    for model in models:
        model.network.net[1].p = 0.0
    after = reports(steps, 200, data(10))[..., 1].var(0)
    assert bool((after < 0.5 * before).all())


class WritesIntoNew(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(X, CLASSES)

    def forward(self, x):
        scores = x.new_zeros(len(x), CLASSES)
        scores[:, 0] = self.linear(x)[:, 0]
        return scores


class LooksAtValues(nn.Linear):
    def forward(self, x):
        scores = super().forward(x)
        return scores if scores.sum() > 0 else -scores


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (lambda: LooksAtValues(X, CLASSES), "it cannot be traced"),
        (WritesIntoNew, r"vmap cannot map their step .*inplace"),
    ],
)
def test_what_cannot_be_mapped_is_refused(net, reason):
    models, guides = members(2, net)
    before = {name: value.clone() for name, value in guides[1].state_dict().items()}
    _, steps = steps_of(models, guides)
    with pytest.raises(ValueError, match=f"members cannot be trained at once: {reason}.*; train them one by one"):
        reports(steps, 1, data(10))
    torch.testing.assert_close(guides[1].state_dict(), before, rtol=0, atol=0)


def test_inputs_with_a_gradient_are_refused():
    _, steps = steps_of(*members(2, lambda: nn.Linear(X, CLASSES)))
    x, y = data(10)
    with pytest.raises(ValueError, match="requires a gradient"):
        reports(steps, 1, (x.requires_grad_(), y))


def test_optimizers_are_plain_adams_that_differ_in_learning_rates_alone():
    pairs = members(2, lambda: nn.Linear(X, CLASSES))
    for make, settings in ((torch.optim.SGD, {}), (torch.optim.Adam, {"weight_decay": 0.1})):
        _, steps = steps_of(*pairs, optimizer=make, **settings)
        with pytest.raises(ValueError, match=r"member 0 has .* for its optimizer"), steps.training():
            pass
    runs, steps = steps_of(*pairs)
    runs[1].optimizer.param_groups[0]["betas"] = (0.5, 0.9)
    with pytest.raises(ValueError, match="more than the learning rate"):
        reports(steps, 1, data(10))


def test_parameters_that_have_been_replaced_are_refused():
    models, guides = members(2)
    _, steps = steps_of(models, guides)
    reports(steps, 1, data(10))
    models[1].network.net[1].reset_parameters()
    models[1].network.net[1].running_mean = torch.zeros(5)
    with pytest.raises(ValueError, match="member 1 was given other parameters, buffers or modules"):
        reports(steps, 1, data(10))
