"""What a pass through the data reports, and what it does when a number is no longer finite."""

import copy

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.training.one_pass import Totals, one_pass
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.run import Fit
from tests.digits import pair, values


def test_means_over_the_steps_of_a_pass():
    """In nats per datum, of the loss as it was at each step."""
    x, y = torch.randn(30, 64), torch.randint(10, (30,))
    model, guide = pair(30)
    batches = [(x[:10], y[:10]), (x[10:], y[10:])]
    terms = [vbd.VBD_ELBO().terms(model, guide, *batch) for batch in batches]
    run = vbd.fit(model, guide, batches, epochs=1, lr=1e-12, progress=False)
    record = run.history[0]
    assert record["kl"] == pytest.approx(terms[0].kl.item() / 30, rel=1e-5)
    mean = sum(part.log_likelihood.item() for part in terms) / 2 / 30
    assert record["log_likelihood"] == pytest.approx(mean, rel=0.05)  # up to the noise of the weights
    assert record["loss"] == pytest.approx(record["kl"] - record["log_likelihood"], rel=1e-5)
    assert run.step == 2


@pytest.mark.usefixtures("traced")
@pytest.mark.filterwarnings("ignore:Encountered NaN")
@pytest.mark.parametrize("compile", [False, True])
def test_the_parameters_are_as_before_a_step_that_went_wrong(compile):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    batches = [(x, y)] * 3 + [(1e30 * x, y)] + [(x, y)] * 4
    model, guide = pair(20)
    expected = copy.deepcopy((model, guide))
    expected[1]._model.model = expected[0]
    run = {"epochs": 1, "progress": False, "compile": compile, "seed": 0}
    vbd.fit(*expected, batches[:3], **run)
    with pytest.raises(FloatingPointError, match=r"at step 3 \(epoch 0\), from the log-likelihood: look"):
        vbd.fit(model, guide, batches, **run)
    torch.testing.assert_close(values(model, guide), values(*expected), rtol=1e-4, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_a_loss_that_is_no_number_names_step_site_and_checkpoint(tmp_path):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    model, guide = pair(20)
    path = tmp_path / "run.ckpt"
    vbd.fit(model, guide, [(x, y)], epochs=2, checkpoint=path, progress=False)
    before = path.read_bytes()

    def break_it(run):
        with torch.no_grad():
            guide.posteriors["q/0/weight"].log_var[0, 0] = float("nan")

    with pytest.raises(FloatingPointError, match=r"step 3 \(epoch 3\).*0\.weight.*last good state is in .*run\.ckpt"):
        vbd.fit(model, guide, [(x, y)], epochs=9, checkpoint=path, progress=False, callbacks=[break_it])
    with pytest.raises(FloatingPointError, match=r"lower the learning rate$"):  # there is no checkpoint yet
        vbd.fit(model, guide, [(x, y)], epochs=1, checkpoint=tmp_path / "other.ckpt", progress=False)
    path.write_bytes(before)
    assert vbd.fit(model, guide, [(x, y)], epochs=3, checkpoint=path, progress=False).epoch == 3


def test_parameters_that_blow_up_are_not_saved(tmp_path):
    x, y = torch.randn(20, 64), torch.randint(10, (20,))
    model, guide = pair(20)
    path = tmp_path / "run.ckpt"
    vbd.fit(model, guide, [(x, y)], epochs=1, checkpoint=path, progress=False)
    with pytest.raises(FloatingPointError, match="no longer finite after step 2"):
        vbd.fit(model, guide, [(x, y)], epochs=5, checkpoint=path, progress=False,
                lr_schedule=lambda epoch, epochs: float("inf"))  # fmt: skip
    assert all(v.isfinite().all() for v in vbd.load_checkpoint(path)["values"].values())


def test_a_data_set_that_is_used_up_is_found():
    class Stream:
        batches = iter([(torch.randn(20, 64), torch.randint(10, (20,)))])

        def __iter__(self):
            return self.batches

    model, guide = pair(20)
    with pytest.raises(ValueError, match="passed through again"):
        vbd.fit(model, guide, Stream(), epochs=1, progress=False)


# --- totals ---------------------------------------------------------------------------------------------------------

SITES = ("a", "b")


def totals():
    model = vbd.Classifier(nn.Linear(3, 2), vbd.priors.GaussianUniform(), num_data=10)
    guide = vbd.VBDGuide(model)
    optimizer = torch.optim.Adam(guide.parameters(), lr=0.1)
    run = Fit(model, guide, vbd.VBD_ELBO(0.5), dict(guide.named_parameters()), optimizer, epoch=2, step=7)
    return run, Totals(run, None)


def report(log_likelihood, *kls):
    return torch.tensor([sum(kls) - log_likelihood, log_likelihood, *kls])


def test_a_record_holds_means_over_steps_in_nats_per_datum():
    run, sums = totals()
    run.step += 3
    run.optimizer.param_groups[0]["lr"] = 0.2  # by a schedule
    sums.add([report(-30.0, 1.0, 2.0), report(-20.0, 3.0, 4.0)], SITES)
    sums.add([], SITES)
    sums.add([report(-10.0, 5.0, 6.0)], SITES)
    record = sums.record()
    assert record.pop("seconds") >= 0
    assert record == pytest.approx(
        {"epoch": 2, "log_likelihood": -2.0, "kl": 0.7, "loss": 2.7, "kl_weight": 0.5, "lr": 0.2}
    )


@pytest.mark.parametrize(("look_every", "taken"), [(1, 2), (2, 2), (3, 3), (9, 5)])
def test_losses_are_looked_at_every_so_many_steps(look_every, taken):
    run, _ = totals()
    steps = []

    def take_step(batch, *_):
        steps.append(batch)
        return report(-1.0, float("nan") if len(steps) == 2 else 1.0, 1.0), SITES

    with pytest.raises(FloatingPointError, match=r"at step 8 \(epoch 2\), from a"):
        one_pass(run, take_step, look_every, [()] * 5, Processes(), None)
    assert len(steps) == taken


def test_the_first_loss_that_is_not_finite_names_its_step_and_site():
    run, sums = totals()
    run.step += 3
    with pytest.raises(FloatingPointError, match=r"the loss is nan at step 8 \(epoch 2\), from b: look"):
        sums.add([report(-1.0, 1.0, 1.0), report(-1.0, 1.0, float("nan")), report(float("nan"), 1.0, 1.0)], SITES)
    assert run.step == 8
    with pytest.raises(FloatingPointError, match=r"from b, the log-likelihood: look"):  # which follows from b
        sums.add([report(float("nan"), 1.0, float("nan"))], SITES)
    with pytest.raises(FloatingPointError, match="from its sum: look"):
        sums.add([torch.tensor([float("inf"), -1.0, 1.0, 1.0])], SITES)
    name, value = next(iter(run.parameters.items()))
    value.data.view(-1)[0] = float("inf")
    with pytest.raises(FloatingPointError, match=rf"from b, with \['{name}'\] no longer finite: look"):
        sums.add([report(-1.0, 1.0, float("nan"))], SITES)


def test_parameters_that_are_not_finite_and_passes_without_steps_give_no_record():
    run, sums = totals()
    with pytest.raises(ValueError, match="no batch"):
        sums.record()
    run.step += 1
    name, value = next(iter(run.parameters.items()))
    value.data.view(-1)[0] = float("inf")
    with pytest.raises(FloatingPointError, match=rf"\['{name}'\] are no longer finite after step 8"):
        sums.record()
