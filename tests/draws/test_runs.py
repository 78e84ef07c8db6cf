import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from pyro_vbd.draws.runs import all_data, draw_runs
from tests.digits import classifier
from tests.linear_model import data, exact_pair, make_model


def visits(model, guide, args, draws, batch_size):
    with draw_runs(model, guide, args, batch_size) as runs:
        return [(run.draws.start, run.draws.stop, run.data.start, run.data.stop) for run in runs(draws)]


def test_every_draw_meets_all_data():
    x, y = data()
    pair = exact_pair(x, y)
    assert visits(*pair, (x, y), 5, 64) == [(0, 2, 0, 32), (2, 4, 0, 32), (4, 5, 0, 32)]
    assert visits(*pair, (x, y), 2, 20) == [(0, 1, 0, 20), (0, 1, 20, 32), (1, 2, 0, 20), (1, 2, 20, 32)]
    with draw_runs(*pair, (x, y), 20) as runs:
        first, second, third, _ = [run.latents()["w"] for run in runs(2)]
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


@pytest.mark.parametrize("net", [nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 3)), nn.Linear(8, 3)])
def test_draws_in_parallel_are_those_one_by_one(net):
    model = vbd.Classifier(net, vbd.priors.GaussianUniform(), num_data=10)
    guide = vbd.VBDGuide(model, init_log_var=-2.0)
    x = torch.randn(10, 1, 8, 8) if isinstance(net, nn.Sequential) else torch.randn(10, 8)
    y = torch.randint(3, (10,))
    with draw_runs(model, guide, (x, y), 1000) as runs:
        (run,) = runs(4)
        assert run.together
        for draw in range(4):
            values = {name: value[draw] for name, value in run.latents().items()}
            alone = pyro.poutine.trace(pyro.poutine.condition(model, values)).get_trace(x, y)
            expected = alone.nodes["y"]["fn"].log_prob(y)
            assert torch.allclose(run.log_likelihood()["y"][draw], expected, atol=1e-5)


@pytest.mark.parametrize("mixing", [lambda x, w: x @ w, lambda x, w: x * w.mean()], ids=["matmul", "mixes draws"])
def test_a_model_that_does_not_broadcast_runs_draw_by_draw(mixing):
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", len(x)):
            mean = mixing(x, w)
            pyro.sample("y", dist.Normal(mean if mean.dim() == 1 else mean[..., 0], 1.0), obs=y)

    x, y = data()
    guide = vbd.VBDGuide(model, x, y)
    assert visits(model, guide, (x, y), 2, 1000) == [(0, 1, 0, 32), (1, 2, 0, 32)]


def test_recurrent_networks_and_batch_norm_run_as_they_are():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.norm, self.head = nn.LSTM(3, 4, batch_first=True), nn.BatchNorm1d(4), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.norm(self.lstm(x)[0][:, -1]))

    model = vbd.Classifier(Net(), vbd.priors.GaussianUniform(), num_data=6)
    guide = vbd.VBDGuide(model)
    x, y = torch.randn(6, 5, 3), torch.randint(2, (6,))
    assert visits(model, guide, (x, y), 3, 100) == [(0, 3, 0, 6)]
    assert model.training
    assert int(model.network.net.norm.num_batches_tracked) == 0


def test_points_are_known():
    model = classifier(20)
    guide = vbd.VBDGuide(model)
    with draw_runs(model, guide, (torch.randn(20, 64), torch.zeros(20).long()), 100) as runs:
        assert runs.points == {"0.weight_gamma", "2.weight_gamma"}


def test_a_point_that_moves_from_draw_to_draw_is_none():
    """Pyro's guides give a latent as a Delta at what they drew elsewhere."""
    x, y = data()
    model = make_model(len(x))
    guide = pyro.infer.autoguide.AutoNormal(model)
    guide(x, y)
    with draw_runs(model, guide, (x, y), 100) as runs:
        assert runs.points == set()


def test_every_datum_is_looked_at_under_validation():
    """Of a batch that the first one does not hold too."""
    model = classifier(20)
    guide = vbd.VBDGuide(model)
    x, y = torch.randn(20, 64), torch.zeros(20).long()
    y[-1] = 10
    with pyro.validation_enabled(True), pytest.raises(ValueError, match="10"):
        visits(model, guide, (x, y), 1, 5)


def test_a_guide_of_ones_own_is_in_evaluation_mode():
    class Guide(nn.Module):
        def forward(self, x, y=None):
            assert not self.training
            pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))

    x, y = data()
    guide = Guide()
    assert visits(make_model(len(x)), guide, (x, y), 1, 32) == [(0, 1, 0, 32)]
    assert guide.training


def test_predictive_draws_follow_the_observations_that_they_depend_on():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, 1.0))
        with pyro.plate("data", len(x)):
            first = pyro.sample("first", dist.Normal(w * x, 1.0), obs=None if y is None else y[:, 0])
            pyro.sample("second", dist.Normal(10 * first, 0.1), obs=None if y is None else y[:, 1])

    x, y = torch.randn(300), torch.zeros(300, 2)
    guide = vbd.VBDGuide(model, x, y)
    for batch_size in (300, 3000, 100):
        with draw_runs(model, guide, (x, y), batch_size) as runs:
            run = next(iter(runs(2)))
            drawn = runs.predictive(run)
            assert drawn["first"].shape == drawn["second"].shape == run.log_likelihood()["first"].shape
        rest = drawn["second"] - 10 * drawn["first"]
        assert 0.05 < rest.std() < 0.2
        assert drawn["first"].std() > 0.5


def test_how_the_plate_counts_the_data():
    x, y = data()
    model = make_model(1000)
    guide = vbd.VBDGuide(model, x, y)
    for batch_size in (1, 7, 100):
        with draw_runs(model, guide, (x, y), batch_size) as runs:
            assert (runs.full_size, runs.num_data) == (1000, 32)
    model, guide = exact_pair(x, y)
    for batch_size in (1, 7, 100):
        with draw_runs(model, guide, (x, y), batch_size) as runs:
            assert runs.full_size == runs.num_data == 32
    network = classifier(16)  # fewer than there are data here, and as many as there are in a batch
    with draw_runs(network, vbd.VBDGuide(network), (torch.randn(32, 64), torch.zeros(32).long()), 100) as runs:
        assert (runs.full_size, runs.num_data, runs.num_batches) == (16, 32, 2)


def test_of_two_plates_of_the_size_of_a_batch_the_subsampled_one_is_of_the_data():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", 12, subsample=x, dim=-2), pyro.plate("outputs", 3, dim=-1):
            pyro.sample("y", dist.Normal(x * w.unsqueeze(-2), 1.0), obs=y)

    x, y = torch.randn(12, 3), torch.randn(12, 3)
    guide = vbd.VBDGuide(model, x, y)
    with draw_runs(model, guide, (x, y), 3) as runs:
        assert runs.data_plate("y").name == "data"
        assert runs.full_size == 12
    with draw_runs(model, guide, (x[:3], y[:3]), 3) as runs:
        assert runs.data_plate("y").name == "data"


def test_arguments():
    x, y = torch.randn(5, 2), torch.arange(5)
    assert all_data(x, y) == (x, y)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x.cpu(), y.cpu()), batch_size=2)
    with torch.device("cpu"):
        found = all_data(loader)
    assert torch.equal(found[0], x.cpu())
    assert torch.equal(found[1], y.cpu())
    with pytest.raises(ValueError, match="there are no targets"):
        all_data(x)
    with pytest.raises(ValueError, match="x gave no batch"):
        all_data([])


def check(message, model, guide, args, batch_size=10):
    with pytest.raises(ValueError, match=message), draw_runs(model, guide, args, batch_size):
        pass


def test_bad_input():
    x, y = data()
    model, guide = exact_pair(x, y)
    check("batch_size=0", model, guide, (x, y), batch_size=0)
    check("lengths \\[31, 32\\]", model, guide, (x, y[1:]))
    check("above 0", model, guide, (x[:0], y[:0]))
    check("observes nothing", model, guide, (x, None))
    check("made for another model", make_model(32), guide, (x, y))

    def with_more(x, y=None):
        pyro.sample("v", dist.Normal(0.0, 1.0))
        return model(x, y)

    check("latents \\['v'\\]", with_more, guide.forward, (x, y))


def test_models_that_need_all_data_at_once():
    x, y = data()

    def fixed_plate(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        with pyro.plate("data", 32):
            pyro.sample("y", dist.Normal((x * w).sum(-1), 1.0), obs=y)

    def no_plate(x, y=None):
        w = pyro.sample("w", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("y", dist.Normal((x * w).sum(-1), 1.0).to_event(1), obs=y)

    def local_latent(x, y=None):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("y", dist.Normal(z, 1.0), obs=y)

    for model, message in (
        (fixed_plate, "batch_size=32"),
        (no_plate, "no plate"),
        (local_latent, "'z'.*once for each datum"),
    ):
        guide = vbd.VBDGuide(model, x, y)
        assert visits(model, guide, (x, y), 1, 32) == [(0, 1, 0, 32)]
        check(message, model, guide, (x, y))
