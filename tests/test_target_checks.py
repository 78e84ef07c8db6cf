"""Wrong inputs and targets are refused by name, through the models that take them."""

import math

import pyro
import pytest
import torch
from torch import nn

import pyro_vbd as vbd

PRIOR = vbd.priors.GaussianUniform()


def classifier(outputs: int = 4, **settings) -> vbd.Classifier:
    return vbd.Classifier(nn.Linear(3, outputs), PRIOR, 8, **settings)


def regressor(outputs: int = 1, **settings) -> vbd.Regressor:
    return vbd.Regressor(nn.Linear(3, outputs), PRIOR, 8, **settings)


@pytest.mark.parametrize(
    ("make", "y", "message"),
    [
        (classifier, lambda: torch.full((8,), 4), "between 4 and 4, but the network has 4 outputs: use labels from 0 to 3"),
        (classifier, lambda: torch.full((8,), -1), "lie between -1 and -1"),
        (lambda: classifier(ignore_index=-1), lambda: torch.full((8,), -2), "lie between -2 and -2"),
        (classifier, lambda: torch.zeros(8), r"float32: use integers from 0 to 3 \(y.long"),
        (classifier, lambda: torch.zeros(8, dtype=torch.bool), "torch.bool: use integers"),
        (classifier, lambda: torch.zeros(8, 1).long(), r"shape \(8, 1\), the outputs call for \(8,\): reshape y"),
        (classifier, lambda: torch.zeros(8, 4).long(), r"shape \(8, 4\), the outputs call for \(8,\)"),
        (classifier, lambda: torch.zeros(5).long(), r"shape \(5,\), the outputs call for \(8,\)"),
        (lambda: classifier(1), lambda: torch.full((8,), 2), "between 2.0 and 2.0: use 0 and 1"),
        (lambda: classifier(1), lambda: torch.full((8,), 0.5), "use 0 and 1"),
        (lambda: classifier(1), lambda: torch.zeros(8, 2), r"shape \(8, 2\)"),
        (lambda: classifier(1), lambda: torch.full((8,), math.nan), "8 targets are NaN or infinite: clean the data"),
        (lambda: classifier(multilabel=True), lambda: torch.full((8, 4), 3), "use 0 and 1"),
        (lambda: classifier(multilabel=True, ignore_index=-1), lambda: torch.tensor([[3, -1, 0, 1]] * 8),
         "between 0.0 and 3.0: use 0 and 1"),
        (lambda: classifier(1, ignore_index=-1), lambda: torch.full((8,), -2), "between -2.0 and -2.0: use 0 and 1"),
        (lambda: classifier(multilabel=True), lambda: torch.zeros(8), r"shape \(8,\), the outputs call for \(8, 4\)"),
        (regressor, lambda: torch.full((8,), math.nan), "8 targets are NaN or infinite: clean the data"),
        (regressor, lambda: torch.full((8, 1), -math.inf), "8 targets are NaN or infinite"),
        (regressor, lambda: torch.zeros(7), r"shape \(7, 1\), the outputs call for \(8, 1\)"),
        (lambda: regressor(2), lambda: torch.zeros(8), r"shape \(8,\), the outputs call for \(8, 2\)"),
        (lambda: regressor(8), lambda: torch.zeros(8), r"shape \(8,\), the outputs call for \(8, 8\)"),
    ],
)  # fmt: skip
def test_bad_targets_are_refused(make, y, message):
    with pytest.raises(ValueError, match=message):
        make()(torch.randn(8, 3), y())


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("pack", [lambda x: x, lambda x: (x,), lambda x: {"input": x}])
def test_inputs_that_are_not_finite_are_refused(pack, bad):
    x = torch.randn(8, 3)
    x[0, 1] = x[3, 0] = bad
    with pytest.raises(ValueError, match="the inputs hold 2 values that are NaN or infinite: clean or scale"):
        classifier()(pack(x))


def clipped() -> vbd.Classifier:
    return vbd.Classifier(nn.Sequential(nn.Hardtanh(), nn.Linear(3, 4)), PRIOR, 8)


def test_inputs_whose_sum_overflows_are_accepted():
    clipped()(torch.full((8, 3), torch.finfo(torch.float32).max))


def test_values_are_not_looked_at_without_validation():
    with pyro.validation_enabled(False):
        clipped()(torch.full((8, 3), math.inf))
        classifier()(torch.randn(8, 3), torch.full((8,), 9))


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (lambda: torch.randn(8, 3), lambda: torch.full((8,), 4), "labels lie between 4 and 4"),
        (lambda: torch.full((8, 3), math.nan), lambda: torch.zeros(8).long(), "inputs hold 24 values"),
    ],
)
@pytest.mark.parametrize("look", [vbd.negative_log_likelihood, vbd.sweep])
def test_held_out_data_are_checked_as_those_for_training_are(look, x, y, message):
    model = classifier()
    guide = vbd.VBDGuide(model)
    with pytest.raises(ValueError, match=message):
        look(model, guide, [(x(), y())])
    with pytest.raises(ValueError, match=message):
        vbd.fit(
            model, guide, [(torch.randn(8, 3), torch.zeros(8).long())], validation=[(x(), y())], epochs=1, progress=False
        )


def test_inputs_of_predictions_are_checked():
    model = regressor()
    with pytest.raises(ValueError, match="inputs hold 6 values"):
        vbd.predict(model, vbd.VBDGuide(model), torch.full((2, 3), math.inf), num_samples=2)


def test_held_out_data_may_be_more_than_the_training_set():
    model = classifier()
    guide, data = vbd.VBDGuide(model), [(torch.randn(9, 3), torch.zeros(9).long())]
    assert vbd.negative_log_likelihood(model, guide, data) > 0
    assert 0 <= vbd.sweep(model, guide, data, [3.0]).full_error <= 1
    with pytest.raises(ValueError, match="the batch holds 9 data, but num_data=8"):
        vbd.fit(model, guide, data, epochs=1, progress=False)


def test_one_datum_without_a_dimension_of_data_is_refused():
    """Its three logits would be a yes or no of each of three data."""
    model, x = vbd.Classifier(nn.Linear(4, 3), PRIOR, 8), torch.randn(4)
    with pytest.raises(ValueError, match=r"shape \(4,\) have outputs for 3 data: put a dimension of data in front"):
        vbd.predict(model, vbd.VBDGuide(model), x, num_samples=2)
    ages = vbd.Regressor(nn.Sequential(nn.Unflatten(0, (-1, 1)), nn.Linear(1, 1)), PRIOR, 8)
    assert ages(x).shape == (4, 1)  # a vector of data is one


@pytest.mark.parametrize(("settings", "shape"), [({}, (8,)), ({"outputs": 1}, (8,)), ({"multilabel": True}, (8, 4))])
def test_a_batch_without_any_target_that_counts_is_accepted(settings, shape):
    model = classifier(ignore_index=-1, **settings)
    y = torch.full(shape, -1)
    assert torch.equal(model(torch.randn(8, 3), y).long(), y)
    assert vbd.VBD_ELBO().terms(model, vbd.VBDGuide(model), torch.randn(8, 3), y).log_likelihood == 0
