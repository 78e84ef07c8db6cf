"""Training in several processes: the gradients of one process, the KL counted once, and nothing that waits for ever."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.distributed import get_rank
from torch.nn.parallel import DistributedDataParallel

import pyro_vbd as vbd
from pyro_vbd.compiling import compiled_step
from pyro_vbd.training.processes import Processes, num_data
from tests.process_runs import in_processes

N = 40


@pytest.fixture(autouse=True)
def _on_the_cpu():
    """The processes are started without a default device; a GPU is one process's."""
    with torch.device("cpu"):
        yield


def tables():
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(N, 6, generator=generator, dtype=torch.float64)
    return x, torch.randint(3, (N,), generator=generator)


def pair(prior=vbd.priors.GaussianUniform, norm=False, log_var=-3.0):
    torch.manual_seed(1)
    layers = [nn.Linear(6, 5), *([nn.BatchNorm1d(5)] if norm else []), nn.Tanh(), nn.Linear(5, 3)]
    model = vbd.Classifier(nn.Sequential(*layers).double(), prior(), num_data=1000)
    return model, vbd.VBDGuide(model, init_log_var=log_var)


def state(model, guide):
    return {name: value.clone() for name, value in {**model.state_dict(), **guide.state_dict()}.items()}


class Rows:
    """Batches of given rows, whose local noise is a function of the row: the same whichever process takes it."""

    now: torch.Tensor

    def __init__(self, *rows):
        self.rows = rows

    def __iter__(self):
        x, y = tables()
        for rows in self.rows:
            Rows.now = torch.tensor(rows)
            yield x[rows], y[rows]


def noise_by_row(like, **_):
    generator = torch.Generator().manual_seed(like.shape[-1])
    return torch.randn(N, like.shape[-1], generator=generator, dtype=like.dtype)[Rows.now]


def steps(rows_by_rank, prior, monkeypatch=None):
    """The parameters after steps of gradient descent, each process on rows of its own, under noise by row."""
    original = torch.randn_like
    torch.randn_like = noise_by_row
    try:
        model, guide = pair(prior)
        rank = get_rank() if torch.distributed.is_initialized() else 0
        run = vbd.fit(model, guide, Rows(*rows_by_rank[rank]), epochs=1, progress=False,
                      optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3))  # fmt: skip
    finally:
        torch.randn_like = original
    return state(model, guide), {key: run.history[0][key] for key in ("loss", "kl", "log_likelihood")}, run.step


def close(found, expected, tolerance=1e-9):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(found[name].double(), value.double(), rtol=tolerance, atol=tolerance), name


@pytest.mark.parametrize(
    ("prior", "rows"),
    [
        (vbd.priors.GaussianUniform, [[list(range(6))], [list(range(6, 11))]]),
        (vbd.priors.Horseshoe, [[[0, 1, 2]], [[3, 4]], [[5]], [[6, 7, 8, 9, 10]]]),
        # the second has no more when the first has two batches left
        (vbd.priors.GaussianUniform, [[[0, 1, 2], [3, 4], [5]], [[6]]]),
    ],
    ids=["two", "four", "uneven"],
)
def test_gradients_are_those_of_one_process_on_the_whole_batch(prior, rows, tmp_path):
    longest = max(len(batches) for batches in rows)
    whole = [[[row for batches in rows for part in batches[i : i + 1] for row in part] for i in range(longest)]]
    expected, record, count = steps(whole, prior)
    start = state(*pair(prior))
    assert any(not torch.allclose(expected[name], start[name], atol=1e-4) for name in start)
    for found, found_record, found_count in in_processes(steps, len(rows), tmp_path, rows, prior):
        close(found, expected)
        assert found_record == pytest.approx(record, rel=1e-9)
        assert found_count == count


def shared_run(compile, epochs=3, checkpoint=None, seed=0, callbacks=(), log_var=-3.0, batch_size=9):
    """A run on Batches, which are shared out."""
    if compile:  # as a traced graph: what Inductor does to it is not what is looked at
        compiled_step.machine_code = lambda graph, *_: graph
    x, y = tables()
    model, guide = pair(norm=True, log_var=log_var)
    torch.manual_seed(7)  # the same in all processes, as in a program that begins with it
    run = vbd.fit(model, guide, vbd.Batches(x, y, batch_size=batch_size), epochs=epochs, lr=1e-2, seed=seed, progress=False,
                  checkpoint=checkpoint, compile=compile, callbacks=callbacks,
                  validation=vbd.Batches(x[:7], y[:7], batch_size=3, shuffle=False))  # fmt: skip
    history = [{key: value for key, value in record.items() if key != "seconds"} for record in run.history]
    return state(model, guide), history, torch.randn(3), run.epoch


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_all_processes_end_in_the_same_parameters_after_noise_of_their_own(compile, tmp_path):
    # in equal shares: as many numbers are drawn in each
    arguments = compile, 3, None, 0, (), -3.0, 8
    (first, history, noise, _), (second, other_history, other_noise, _) = in_processes(shared_run, 2, tmp_path, *arguments)
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert history == other_history
    assert not torch.equal(noise, other_noise)
    assert history[-1]["loss"] < history[0]["loss"]
    validation = vbd.negative_log_likelihood(*loaded(first), [tuple(part[:7] for part in tables())])
    assert history[-1]["validation"] == pytest.approx(validation, rel=1e-9)


def loaded(values):
    model, guide = pair(norm=True)
    model.load_state_dict({name: values[name] for name in model.state_dict()})
    guide.load_state_dict({name: values[name] for name in guide.state_dict()})
    return model, guide


def without_noise(compile):
    """Steps on shared Batches where noise is far below the tolerance, so that only shares and weights matter."""
    if compile:
        compiled_step.machine_code = lambda graph, *_: graph
    x, y = tables()
    model, guide = pair(log_var=-60.0)
    vbd.fit(model, guide, vbd.Batches(x, y, batch_size=9, shuffle=False), epochs=2, progress=False, compile=compile,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1e-3))  # fmt: skip
    return state(model, guide)


@pytest.mark.parametrize("compile", [False, True], ids=["eager", "compiled"])
def test_batches_are_shared_out_whole(compile, tmp_path):
    expected = without_noise(False)
    for found in in_processes(without_noise, 4, tmp_path, compile):  # 40 = 4 * 9 + 4 data
        close(found, expected, 1e-7)


def averages():
    """Of gradients that all processes have, one has, and none has."""
    rank = get_rank()
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.tensor([1.0, 2.0]) + rank
    if rank == 1:
        parameters[1].grad = torch.tensor([4.0, 8.0])
    report = Processes().average(parameters, torch.tensor([10.0, 20.0]) * rank, (0.75, 0.25)[rank])
    return report.tolist(), [None if p.grad is None else p.grad.tolist() for p in parameters]


def test_averages(tmp_path):
    for found in in_processes(averages, 2, tmp_path):
        assert found == ([2.5, 5.0], [[1.25, 2.25], [1.0, 2.0], None])


def sparse_average():
    """Of gradients that are not zero in two rows of each process, one of them common."""
    embedding = nn.Embedding(4, 2, sparse=True)
    rows = torch.tensor([[0, 1], [1, 3]][get_rank()])
    embedding(rows).sum().backward()
    Processes().average([embedding.weight], torch.zeros(1), 0.5)
    return embedding.weight.grad.to_dense().tolist()


def test_gradients_of_embeddings_may_be_sparse(tmp_path):
    for found in in_processes(sparse_average, 2, tmp_path):
        assert found == [[0.5, 0.5], [1.0, 1.0], [0.0, 0.0], [0.5, 0.5]]


class Watched(vbd.Batches):
    """Remembers which data it has given."""

    def __init__(self, *tensors, **kwargs):
        super().__init__(*tensors, **kwargs)
        self.given = []

    def take(self, index):
        self.given.append(index.tolist())
        return super().take(index)


def taken():
    data = Watched(*tables(), batch_size=9)
    vbd.fit(*pair(), data, epochs=2, progress=False, seed=0)
    return data.given[1:]  # without the look at the first batch


def test_every_datum_is_taken_once_a_pass_by_one_process(tmp_path):
    first, second = in_processes(taken, 2, tmp_path)
    for one, two in zip(first, second, strict=True):
        assert abs(len(one) - len(two)) <= 1
    for epoch in (slice(0, 5), slice(5, 10)):
        assert sorted(i for rows in first[epoch] + second[epoch] for i in rows) == list(range(N))
    assert first[:5] != first[5:]


def test_a_run_goes_on_bit_for_bit(tmp_path):
    whole = in_processes(shared_run, 2, tmp_path / "whole", False, 4, tmp_path / "whole.ckpt")
    in_processes(shared_run, 2, tmp_path / "half", False, 2, tmp_path / "run.ckpt")
    for one, two in zip(
        whole, in_processes(shared_run, 2, tmp_path / "rest", False, 4, tmp_path / "run.ckpt"), strict=True
    ):
        assert all(torch.equal(one[0][name], two[0][name]) for name in one[0])
        assert one[1] == two[1]
        assert torch.equal(one[2], two[2])


def test_a_run_goes_on_with_more_processes(tmp_path):
    shared_run(False, 2, tmp_path / "run.ckpt")
    first, second = in_processes(shared_run, 2, tmp_path, False, 4, tmp_path / "run.ckpt")
    assert len(first[1]) == 4
    assert all(torch.equal(first[0][name], second[0][name]) for name in first[0])
    assert not torch.equal(first[2], second[2])


def stop_in_second(run):
    run.stop = get_rank() == 1 and run.epoch == 2


def own_seed():
    torch.manual_seed(get_rank())
    model = vbd.Classifier(nn.Linear(6, 3).double(), vbd.priors.GaussianUniform(), num_data=N)
    guide = vbd.VBDGuide(model)
    vbd.fit(model, guide, vbd.Batches(*tables()), epochs=1, progress=False, lr=1e-12)
    return state(model, guide)


def test_what_one_process_decides_holds_for_all(tmp_path):
    for *_, epoch in in_processes(shared_run, 2, tmp_path / "stop", False, 5, None, 0, [stop_in_second]):
        assert epoch == 2
    first, second = in_processes(own_seed, 2, tmp_path / "seed")
    assert all(torch.equal(first[name], second[name]) for name in first)


def sampled():
    x, y = tables()
    data = torch.utils.data.TensorDataset(x, y, torch.arange(N))
    sampler = torch.utils.data.DistributedSampler(data)
    seen: list[set[int]] = []

    class Watched:
        def __init__(self):
            self.sampler = sampler

        def __iter__(self):
            seen.append(set())
            for x, y, index in torch.utils.data.DataLoader(data, batch_size=7, sampler=sampler):
                seen[-1].update(index.tolist())
                yield x, y

    vbd.fit(*pair(), Watched(), epochs=2, progress=False)
    return seen[1:]  # without the look at the first batch


def test_a_distributed_sampler_is_told_the_epoch(tmp_path):
    first, second = in_processes(sampled, 2, tmp_path)
    for one, two in zip(first, second, strict=True):
        assert not one & two
        assert len(one | two) == N
    assert first[0] != first[1]


def test_it_is_told_where_one_process_is_alone_too():
    _, y = tables()
    sampler = torch.utils.data.DistributedSampler(torch.utils.data.TensorDataset(y), num_replicas=1, rank=0)
    told = []
    sampler.set_epoch = told.append
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*tables()), batch_size=20, sampler=sampler)
    vbd.fit(*pair(), loader, epochs=3, progress=False)
    assert told[-3:] == [0, 1, 2]


def wrapped():
    """One step of a loop of one's own around DistributedDataParallel, on halves of a batch, under noise by row."""
    rank = get_rank()
    Rows.now = torch.arange(5 * rank, 5 * rank + 5)
    torch.randn_like = noise_by_row
    model, guide = pair()
    loss = DistributedDataParallel(vbd.VBD_ELBO()(model, guide))
    x, y = tables()
    loss(x[Rows.now], y[Rows.now]).backward()
    return {name: parameter.grad for name, parameter in guide.named_parameters()}


def test_distributed_data_parallel_on_equal_shares(tmp_path):
    before = state(*pair())
    after, *_ = steps([[list(range(10))]], vbd.priors.GaussianUniform)
    for found in in_processes(wrapped, 2, tmp_path):
        for name, gradient in found.items():
            assert torch.allclose(gradient, (before[name] - after[name]) / 1e-3, rtol=1e-6, atol=1e-8), name


# --- what is refused -------------------------------------------------------------------------------------------------


def unscaled():
    def model(x, y=None):
        w = pyro.sample("w", dist.Normal(0.0, pyro.sample("gamma", dist.Uniform(0.0, 9.0)).sqrt()).expand([6]).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(x @ w.to(x.dtype), 1.0), obs=y.double())

    vbd.fit(model, vbd.VBDGuide(model), vbd.Batches(*tables()), epochs=1, progress=False)


def not_finite():
    x, y = tables()
    model, guide = pair()
    start = state(model, guide)
    data = [(x[:5], y[:5]), (x[:5] if get_rank() == 0 else torch.full_like(x[:5], torch.nan), y[:5])]
    pyro.enable_validation(False)
    vbd.fit(model, guide, data[1:], epochs=1, progress=False)
    return start


def one_batch_in_first():
    x, y = tables()
    vbd.fit(*pair(), [(x, y)] if get_rank() == 0 else [], epochs=1, progress=False)


def test_bad_input_is_refused_by_all_alike(tmp_path):
    cases = {
        "batches of 1 data leave some of the 2 processes": (shared_run, False, 1, None, 0, (), -3.0, 1),
        "'y' stands in a plate of 20 data at most, but 2 processes take 40": (unscaled,),
        "the loss is nan at step 0 (epoch 0), from the log-likelihood": (not_finite,),
    }
    for number, (message, (function, *args)) in enumerate(cases.items()):
        for found in in_processes(function, 2, tmp_path / str(number), *args):
            assert isinstance(found, str), message
            assert message in found, found


def half_a_checkpoint(folder):
    path = folder / f"{get_rank()}.ckpt"
    if get_rank() == 0:
        shared = copy.deepcopy(pair())
        vbd.save_checkpoint(path, {"values": {}, "model": shared[0].state_dict()})
    vbd.fit(*pair(), vbd.Batches(*tables()), epochs=1, checkpoint=path, progress=False)


def test_a_checkpoint_that_one_process_cannot_see(tmp_path):
    for found in in_processes(half_a_checkpoint, 2, tmp_path, tmp_path):
        assert "is not there for process 1: put it where every process can read it" in found


# --- alone -----------------------------------------------------------------------------------------------------------


def test_one_process_does_nothing_of_all_this():
    processes = Processes()
    assert (processes.rank, processes.size) == (0, 1)
    random_state = torch.get_rng_state()
    processes.draw_apart()
    assert torch.equal(random_state, torch.get_rng_state())
    assert processes.gathered("it") == ["it"]
    assert processes.total(2, 0.5) == [2.0, 0.5]
    assert list(processes.in_step([(1,), ("no tensor",)])) == [((1,), 1.0), (("no tensor",), 1.0)]


def test_num_data():
    assert num_data((torch.tensor(1.0), {"x": torch.zeros(4, 2)}, torch.zeros(3))) == 4
    with pytest.raises(ValueError, match="no tensor with a dimension"):
        num_data((torch.tensor(1.0), 3))
