import pyro.infer
import pyro.optim
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.training.processes import Processes
from pyro_vbd.training.start import check_arguments, check_elbo, find_parameters, make_optimizer


def test_numbers_of_epochs_have_to_make_sense():
    check_arguments([()], 1, None, None)
    check_arguments([()], 1, 1, [()])
    for arguments, message in (
        ((0, None, None), "epochs=0"),
        ((1, 2, None), "patience=2 needs"),
        ((1, 0, [()]), "patience=0"),
    ):
        with pytest.raises(ValueError, match=message):
            check_arguments([()], *arguments)


@pytest.mark.parametrize("setting", ["data", "validation"])
def test_data_that_can_be_passed_through_once_are_refused(setting):
    """Their first batch would be looked at, and never trained on."""
    model = vbd.Regressor(nn.Linear(3, 1), vbd.priors.GaussianUniform(), 10)
    guide = vbd.VBDGuide(model)
    batches = [(torch.randn(5, 3), torch.randn(5)) for _ in range(2)]
    data = {"data": batches, "validation": batches, setting: (batch for batch in batches)}
    with pytest.raises(ValueError, match=f"{setting} is a generator, which gives each batch only once: pass"):
        vbd.fit(model, guide, **data, epochs=1, progress=False)
    with pytest.raises(ValueError, match=f"{setting} is a generator"):
        vbd.fit_members([model], [guide], **data, epochs=1, progress=False)
    assert len(list(data[setting])) == 2


def test_parameters_of_modules_and_of_statements_are_found_and_nothing_moves():
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), 10)
    guide = vbd.VBDGuide(model)
    model.network.net[1].bias.requires_grad_(False)

    def shifted(x, y):
        pyro.factor("pull", pyro.param("shift", torch.zeros(())))
        return model(x, y)

    guide = vbd.VBDGuide(shifted)
    batch = torch.randn(10, 3), torch.zeros(10, dtype=torch.long)
    random = torch.get_rng_state()
    found = find_parameters(shifted, guide, vbd.VBD_ELBO(), [batch], None, Processes())
    assert torch.equal(torch.get_rng_state(), random)
    assert {name for name in found if name.startswith("guide.")} == {
        f"guide.{name}" for name, _ in guide.named_parameters()
    }
    assert "shift" in found
    assert len({id(value) for value in found.values()}) == len(found)
    assert any(value is model.network.net[1].weight for value in found.values())
    assert all(value.requires_grad for value in found.values())
    assert int(model.network.net[1].num_batches_tracked) == 0
    names = {name for name, value in model.named_parameters() if value.requires_grad}
    found = find_parameters(model, vbd.VBDGuide(model), vbd.VBD_ELBO(), [batch], None, Processes())
    assert {name.removeprefix("model.") for name in found if name.startswith("model.")} == names
    with pytest.raises(ValueError, match="no batch"):
        find_parameters(model, guide, vbd.VBD_ELBO(), [], None, Processes())


@pytest.mark.parametrize("elbo", [pyro.infer.Trace_ELBO(), pyro.infer.Trace_ELBO])
def test_an_objective_of_another_kind_is_refused(elbo):
    check_elbo(vbd.VBD_ELBO())
    with pytest.raises(TypeError, match=r"elbo=Trace_ELBO is no VBD_ELBO: pass VBD_ELBO\(...\), or train by pyro"):
        check_elbo(elbo)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (pyro.optim.Adam({"lr": 1e-3}), "PyroOptim"),
        (torch.optim.Adam([torch.zeros(1)]), "Adam"),
        (lambda parameters: None, "function"),
        ("adam", "str"),
    ],
)
def test_what_makes_no_optimizer_is_refused(make, name):
    message = f"optimizer={name} makes no torch.optim.Optimizer: pass a function of the parameters that makes one, such as"
    with pytest.raises(TypeError, match=message):
        make_optimizer(make, [torch.zeros(1)], 1e-3)


def test_an_optimizer_whose_step_asks_for_a_closure_is_refused():
    with pytest.raises(TypeError, match="optimizer makes a LBFGS, which evaluates the loss several times in a step"):
        make_optimizer(lambda parameters: torch.optim.LBFGS(parameters), [torch.zeros(1)], 1e-3)


class WithoutClosure(torch.optim.SGD):
    def step(self):
        super().step()


@pytest.mark.parametrize("kind", [torch.optim.SGD, WithoutClosure, None])
def test_an_optimizer_is_made_of_the_parameters(kind):
    parameters = {"a": torch.zeros(1), "b": torch.ones(2)}
    made = make_optimizer(kind and (lambda trained: kind(trained, 0.5)), parameters.values(), 0.5)
    (group,) = made.param_groups
    assert [id(value) for value in group["params"]] == [id(value) for value in parameters.values()]
    assert (type(made), group["lr"]) == (kind or torch.optim.Adam, 0.5)
    assert bool(group["fused"]) == (kind is None)  # on a GPU no other Adam can be part of a compiled step


def test_complex_parameters_have_an_adam_too():
    parameters = [nn.Parameter(torch.ones(2, dtype=torch.complex64)), nn.Parameter(torch.ones(2))]
    made = make_optimizer(None, parameters, 0.5)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    made.step()
    assert all(bool((parameter.real < 1).all()) for parameter in parameters)


@pytest.mark.parametrize("setting", [{"elbo": pyro.infer.Trace_ELBO()}, {"optimizer": pyro.optim.Adam({"lr": 1e-3})}])
def test_fit_and_fit_members_refuse_them(setting):
    model = vbd.Regressor(nn.Linear(3, 1), vbd.priors.GaussianUniform(), 10)
    guide = vbd.VBDGuide(model)
    data = [(torch.randn(10, 3), torch.randn(10))]
    for call in (lambda: vbd.fit(model, guide, data, epochs=1, **setting),
                 lambda: vbd.fit_members([model], [guide], data, epochs=1, **setting)):  # fmt: skip
        with pytest.raises(TypeError, match=r"is no VBD_ELBO|makes no torch"):
            call()
