import torch
from torch import nn

import pyro_vbd as vbd


def trained(**settings):
    torch.manual_seed(0)
    x, y = torch.randn(12, 3), torch.randn(12)
    model = vbd.Regressor(nn.Linear(3, 1), vbd.priors.GaussianUniform(), num_data=12)
    data = [(x, y)]
    return vbd.fit(model, vbd.VBDGuide(model), data, epochs=3, progress=False, **settings), data


def test_a_run_holds_its_records_and_counts():
    run, _ = trained()
    assert [record["epoch"] for record in run.history] == [0, 1, 2]
    assert set(run.history[0]) == {"epoch", "loss", "log_likelihood", "kl", "kl_weight", "lr", "seconds"}
    assert (run.epoch, run.step, run.stop, run.failure) == (3, 3, False, None)
    assert (run.best_epoch, run.best) == (None, {})


def test_its_parameters_are_the_tensors_of_model_and_guide():
    run, _ = trained()
    held = {id(p) for part in (run.model, run.guide) for p in part.parameters() if p.requires_grad}
    assert {id(p) for p in run.parameters.values()} == held


def test_the_best_are_those_after_the_best_epoch():
    def remember(run):
        after.append({name: value.detach().clone() for name, value in run.parameters.items()})

    after = []
    _, data = trained()
    run, _ = trained(validation=data, callbacks=[remember])
    assert run.best_epoch == min(range(3), key=lambda epoch: run.history[epoch]["validation"])
    for name, value in after[run.best_epoch].items():
        assert torch.equal(run.best[name], value)


def test_its_repr_shows_no_tensors():
    run, _ = trained()
    assert "parameters=" not in repr(run)
    assert "best=" not in repr(run)
