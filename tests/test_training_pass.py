"""What a pass through the data reports, and what it does when a number is no longer finite."""

import copy

import pytest
import torch

import pyro_vbd as vbd
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


def test_a_generator_that_is_used_up_is_found():
    model, guide = pair(20)
    data = iter([(torch.randn(20, 64), torch.randint(10, (20,)))])
    with pytest.raises(ValueError, match="passed through again"):
        vbd.fit(model, guide, data, epochs=1, progress=False)
