import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import pyro_vbd as vbd
from examples.paper import table4, table5
from examples.paper.results import Results
from examples.paper.runner import data_of, groups, main, run_cells, run_jobs, work_folder
from tests.paper.kills import killed_after
from tests.paper.small_data import write_mnist
from tests.paper.toy import cell, options, table
from tests.programs import Program

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path):
    pytest.importorskip("torchvision")
    write_mnist(tmp_path / "data", train=200, test=50)
    return tmp_path


def test_only_missing_cells_run(folder, monkeypatch):
    log = folder / "log"
    monkeypatch.setenv("TOY_LOG", str(log))
    toy = table()
    assert run_cells(toy, options(toy, folder, "--only", "a")) == 0
    assert sorted(log.read_text().split()) == ["toy_a_1_seed0_last", "toy_a_2_seed0_last"]
    assert run_cells(toy, options(toy, folder, "--seeds", "2")) == 0
    assert len(log.read_text().split()) == len(set(log.read_text().split())) == 8
    record = Results(folder / "results", "toy").records()[cell(seed=1)]
    assert record["metrics"] == {"error": 2.0, "layers": [10, 21]}
    assert record["configuration"] == {"epochs": 3}
    assert record["seconds"] == 2.0
    assert "torch" in record["versions"]
    assert record["device"].startswith("cpu ")
    assert not list((folder / "work").glob("*")) if (folder / "work").exists() else True


def test_seeds_are_trained_together_in_the_rows_that_can(folder):
    made, *_ = table4.TABLES
    wish = ["--only", "vbd", "original", "--sizes", "lenet-300-100", "--epochs", "1", "--members", "2"]
    together = options(made, folder, *wish, "--seeds", "5")
    results = Results(together.results, "4")
    seeds = [(group[0].method, [cell.seed for cell in group]) for group in groups(made, results, together)]
    assert seeds == [
        ("original", [0]), ("vbd", [0, 1]), ("original", [1]), ("original", [2]), ("vbd", [2, 3]),
        ("original", [3]), ("original", [4]), ("vbd", [4]),
    ]  # fmt: skip
    run_cells(made, options(made, folder, *wish[3:], "--only", "vbd", "--seeds", "1", "--first-seed", "1"))
    seeds = [[cell.seed for cell in group] for group in groups(made, results, together) if group[0].method == "vbd"]
    assert seeds == [[0, 2], [3, 4]]


def test_a_seed_begins_alike_alone_and_with_others(folder, monkeypatch):
    made, *_ = table4.TABLES
    begun = {}

    def stop(subjects, **_):
        for subject in subjects:
            state = subject.model.state_dict()
            begun.setdefault(subject.job.cell.seed, []).append(torch.cat([v.flatten() for v in state.values()]))
        raise InterruptedError

    monkeypatch.setattr("examples.paper.bayesian.train", stop)
    for members in ("1", "2"):
        wish = ["--only", "vbd", "--sizes", "lenet-300-100", "--epochs", "1", "--seeds", "2", "--members", members]
        assert run_cells(made, options(made, folder, *wish)) == 2
    assert all(torch.equal(alone, together) for alone, together in begun.values())
    assert not torch.equal(begun[0][0], begun[1][0])


def test_a_member_that_fails_leaves_no_record(folder, monkeypatch, caplog):
    made, *_ = table4.TABLES

    def fit_members(models, guides, *args, train=vbd.fit_members, **kwargs):
        runs = train(models, guides, *args, **kwargs)
        runs[1].failure = "a loss of inf"
        return runs

    monkeypatch.setattr("pyro_vbd.fit_members", fit_members)
    wish = ["--only", "vbd", "--sizes", "lenet-300-100", "--epochs", "1", "--seeds", "2", "--members", "2"]
    assert run_cells(made, options(made, folder, *wish)) == 2
    assert not Results(folder / "results", "4").records()
    assert "4 vbd lenet-300-100 seed 1 stopped: a loss of inf; run this group without --members" in caplog.text


def test_members_are_measured_each_on_its_own_network(folder):
    made, *_ = table4.TABLES
    wish = ["--only", "vbd", "--sizes", "lenet-300-100", "--epochs", "2", "--seeds", "2", "--members", "2"]
    chosen = options(made, folder, *wish, "--selection", "validation")
    assert run_cells(made, chosen) == 0
    records = list(Results(chosen.results, "4").records().values())
    for metrics in (record["metrics"] for record in records):
        picked = metrics["picked"]
        assert picked["epoch"] == 1  # none is picked before three quarters of the run
        assert picked["weights"] == metrics["weights"]
        assert picked["error"] == metrics["error"]
    assert records[0]["metrics"]["weights"] != records[1]["metrics"]["weights"]


def test_a_wrong_entry_is_refused_before_processes_start(folder):
    flags = ["--data-dir", str(folder / "data"), "--results", str(folder / "results"), "--work", str(folder / "work")]
    with pytest.raises(SystemExit, match="has no rl"):
        main("table4", [*flags, "--quiet", "--only", "vbd", "--jobs", "2", "--set", "rl=0.01"])


GROUPS_OF_RUNNERS = """
import sys, time
from dataclasses import replace
from pathlib import Path
from examples.paper import results, runner
from tests.paper.toy import options, table
read = results.Results.records
results.Results.records = lambda self: time.sleep(0.3) or read(self)  # a claim reads them: others come in between
toy = table(("a",), ("1",))
toy = replace(toy, methods={"a": replace(toy.methods["a"], members=True)})
sys.exit(runner.run_cells(toy, options(toy, Path(sys.argv[1]), "--seeds", "8", "--members", "4")))
"""


def test_runners_that_start_together_take_whole_groups(folder):
    (folder / "runner.py").write_text(GROUPS_OF_RUNNERS)
    runners = [Program(folder / "runner.py", str(folder), folder=ROOT, prints=folder / name) for name in "abc"]
    assert [runner.wait() for runner in runners] == [0, 0, 0]
    records = Results(folder / "results", "toy").records()
    assert [records[cell(seed=seed)]["members"] for seed in range(8)] == [[0, 1, 2, 3]] * 4 + [[4, 5, 6, 7]] * 4


def test_a_record_of_another_configuration_is_refused(folder):
    toy = table()
    run_cells(toy, options(toy, folder))
    with pytest.raises(ValueError, match=r"holds toy a 1 seed 0 with \{'epochs': 3\}, where this run has \{'epochs': 5\}"):
        run_cells(toy, options(toy, folder, "--epochs", "5"))


def test_entries_of_a_recipe_can_be_set_and_are_recorded(folder, capsys):
    made, *_ = table4.TABLES
    wish = ["--only", "vbd", "--sizes", "lenet-300-100", "--epochs", "1", "--set"]
    run_cells(made, options(made, folder, *wish, "lr=0.01", "kl_ramp=[0, 2]"))
    (record,) = Results(folder / "results", "4").records().values()
    assert record["configuration"]["lr"] == 0.01
    assert record["configuration"]["kl_ramp"] == [0, 2]
    assert record["configuration"]["batch_size"] == table4.BAYES["batch_size"]
    with pytest.raises(SystemExit, match=r"vbd of table 4 has no rl: it has epochs, .*lr, "):
        run_cells(made, options(made, folder, *wish, "rl=0.01"))
    with pytest.raises(SystemExit):
        options(made, folder, *wish, "lr=x")
    assert "argument --set: invalid setting value: 'lr=x'" in capsys.readouterr().err


def test_checkpoints_of_another_configuration_are_not_gone_on_from(tmp_path):
    toy = table()
    first = work_folder(cell(), {"epochs": 3, "lr": 0.1}, options(toy, tmp_path))
    assert work_folder(cell(), {"lr": 0.1, "epochs": 3}, options(toy, tmp_path)) == first
    assert work_folder(cell(), {"epochs": 4, "lr": 0.1}, options(toy, tmp_path)) != first
    assert work_folder(cell(seed=1), {"epochs": 3, "lr": 0.1}, options(toy, tmp_path)) != first


def test_checkpoints_go_only_when_the_record_is_written(folder, monkeypatch):
    four, *_ = table4.TABLES
    chosen = options(four, folder, "--only", "original", "--sizes", "lenet-300-100", "--epochs", "1")
    with monkeypatch.context() as patch:
        patch.setattr(Results, "add", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
        assert run_cells(four, chosen) == 1
    assert list((folder / "work").rglob("dense.ckpt"))
    assert run_cells(four, chosen) == 0
    assert not list((folder / "work").glob("*"))


def test_a_cell_that_fails_leaves_no_record_and_the_others_go_on(folder, caplog):
    toy = table(("a", "broken", "b"), ("1",))
    assert run_cells(toy, options(toy, folder)) == 1
    assert [c.method for c in Results(folder / "results", "toy").records()] == ["a", "b"]
    assert "on purpose" in caplog.text


def test_data_are_held_out_where_they_are_to_pick(folder):
    toy = table()
    assert data_of(toy, options(toy, folder)).x_val is None
    assert len(data_of(toy, options(toy, folder, "--selection", "validation")).x_val) == 200 // 6


def test_every_cell_begins_from_its_seed(folder):
    def train(jobs):
        seen.append((jobs[0].cell.seed, torch.initial_seed(), torch.rand(()).item()))
        return [{"error": 1.0} for _ in jobs]

    seen = []
    toy = table(methods=("a", "b"), sizes=("1",))
    for name in "ab":
        toy.methods[name] = replace(toy.methods[name], train=train)
    assert run_cells(toy, options(toy, folder, "--seeds", "2", "--first-seed", "3")) == 0
    assert [seed for seed, *_ in seen] == [first for _, first, _ in seen] == [3, 3, 4, 4]
    assert seen[0] == seen[1]


def test_a_record_names_the_seeds_that_were_trained_together(folder):
    toy = table(methods=("a", "b"), sizes=("1",))
    toy.methods["b"] = replace(toy.methods["b"], members=True)
    assert run_cells(toy, options(toy, folder, "--seeds", "2", "--members", "2")) == 0
    found = Results(folder / "results", "toy").records()
    assert {(c.method, c.seed): record["members"] for c, record in found.items()} == {
        ("a", 0): [0], ("a", 1): [1], ("b", 0): [0, 1], ("b", 1): [0, 1]
    }  # fmt: skip


def test_a_record_has_six_digits(folder):
    def train(jobs):
        return [{"error": 1.23456789, "parts": [0.1234567891, 7], "picked": {"error": 123456789.0}} for _ in jobs]

    toy = table(methods=("a",), sizes=("1",))
    toy.methods["a"] = replace(toy.methods["a"], train=train)
    assert run_cells(toy, options(toy, folder)) == 0
    found = Results(folder / "results", "toy").records()[cell()]["metrics"]
    assert found == {"error": 1.23457, "parts": [0.123457, 7], "picked": {"error": 123457000.0}}


def test_data_that_are_not_there(tmp_path, monkeypatch):
    def fetch(*_):
        raise RuntimeError("no network")

    monkeypatch.setattr("examples.paper.splits.load", fetch)
    toy = table()
    with pytest.raises(SystemExit, match=r"mnist, are neither in .* its cells stay empty"):
        run_cells(toy, options(toy, tmp_path))


def test_data_that_are_not_there_are_missed_before_processes_start(tmp_path):
    nowhere = tmp_path / "file"
    nowhere.write_text("in the way of a folder")
    with pytest.raises(SystemExit, match=r"mnist, are neither in .*: pass --data-dir"):
        main("table4", ["--data-dir", str(nowhere), "--results", str(tmp_path / "results"), "--quiet", "--jobs", "2"])


TWO_RUNNERS = """
import sys
from pathlib import Path
from examples.paper.runner import run_cells
from tests.paper.toy import options, table
toy = table(sizes=tuple(map(str, range(10))))
sys.exit(run_cells(toy, options(toy, Path(sys.argv[1]))))
"""


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **more}


def test_two_runners_share_the_cells(folder):
    log = folder / "log"
    (folder / "runner.py").write_text(TWO_RUNNERS)
    runners = [
        Program(folder / "runner.py", str(folder), folder=ROOT, prints=folder / name, TOY_LOG=str(log)) for name in "ab"
    ]
    assert [runner.wait() for runner in runners] == [0, 0]
    ran = log.read_text().split()
    assert len(ran) == len(set(ran)) == 20
    assert len(Results(folder / "results", "toy").records()) == 20


def table4_program(folder, name, *arguments):
    return [
        sys.executable, str(ROOT / "examples/paper/table4.py"), "--data-dir", str(folder / "data"), "--quiet",
        "--results", str(folder / name / "results"), "--work", str(folder / name / "work"),
        "--sizes", "lenet-300-100", *arguments,
    ]  # fmt: skip


def metrics(folder, name):
    lines = (folder / name / "results" / "table4.jsonl").read_text().splitlines()
    return {json.loads(line)["method"]: json.loads(line)["metrics"] for line in lines}


def test_killed_and_started_again_it_ends_where_it_would_have(folder):
    arguments = ["--only", "vbd", "--epochs", "20", "--selection", "validation"]

    def start(name):
        program, *flags = table4_program(folder, name, *arguments)[1:]
        return Program(Path(program), *flags, folder=ROOT, prints=folder / "prints")

    assert start("whole").wait() == 0
    killed = start("killed")
    while not list((folder / "killed" / "work").rglob("*.previous")):
        assert killed.process.is_alive(), killed.stderr
        time.sleep(0.01)
    killed.process.kill()
    assert killed.wait() == -signal.SIGKILL
    assert not (folder / "killed" / "results" / "table4.jsonl").exists()
    assert start("killed").wait() == 0
    assert metrics(folder, "killed") == metrics(folder, "whole")
    assert not list((folder / "killed" / "work").glob("*"))


@pytest.mark.parametrize(
    ("program", "method", "members"),
    [
        (table4, "pruning", 1),
        (table4, "dns", 1),
        (table4, "sws", 1),
        (table5, "ssl", 1),
        (table5, "sbp", 1),
        (table5, "vbd", 1),
        (table5, "vbd", 2),
    ],
)
@pytest.mark.parametrize("epochs", [1, 4])
def test_phases_go_on_from_the_last_epoch(folder, program, method, members, epochs):
    made, *_ = program.TABLES
    size = made.sizes[0]
    name = made.cells([0])[0].table
    seeds = ["--seeds", str(members), "--members", str(members)]

    def run(where):
        chosen = options(made, folder, "--only", method, "--sizes", size, "--epochs", "6", *seeds)
        chosen.results, chosen.work = folder / where / "results", folder / where / "work"
        assert run_cells(made, chosen) == 0
        records = Results(chosen.results, name).records().values()
        assert [record["members"] for record in records] == [list(range(members))] * members
        return [record["metrics"] for record in records]

    whole = run("whole")
    with killed_after(epochs):
        run("stopped")
    assert run("stopped") == whole


@pytest.mark.slow
def test_jobs_are_processes_that_share_the_cells(folder):
    command = table4_program(folder, "jobs", "--only", "original", "--epochs", "1", "--jobs", "2", "--seeds", "3")
    subprocess.run(command, cwd=ROOT, env=environment(), check=True, timeout=120)
    lines = (folder / "jobs" / "results" / "table4.jsonl").read_text().splitlines()
    assert [json.loads(line)["seed"] for line in lines] == [0, 1, 2]
    assert "Magnitude pruning" in (folder / "jobs" / "README.md").read_text()


def test_failures_of_all_processes_are_counted(monkeypatch, tmp_path):
    class Worker:
        def __init__(self, target, args, daemon):
            self.exitcode = (0, 2, -9)[args[2]]  # the last one was killed
            assert daemon  # else it would outlive a program that is stopped

        def start(self):
            pass

        join = start

    class Context:
        Process = Worker

    monkeypatch.setattr("multiprocessing.get_context", lambda kind: Context())
    assert run_jobs("table1", options(table(), tmp_path, "--jobs", "3")) == 3


def test_seeds_differ_and_repeat(folder):
    four, *_ = table4.TABLES
    found = []
    for where, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        chosen = options(four, folder, "--only", "vbd", "--sizes", "lenet-300-100", "--epochs", "1", "--first-seed", seed)
        chosen.results = folder / where
        run_cells(four, chosen)
        found += [record["metrics"]["weights"] for record in Results(chosen.results, "4").records().values()]
    assert found[0] == found[1] != found[2]


def test_compile_reaches_fit(folder, monkeypatch):
    seen = {}

    def fit(*args, **kwargs):
        seen.update(kwargs)
        raise InterruptedError

    monkeypatch.setattr("pyro_vbd.fit", fit)
    four, *_ = table4.TABLES
    wish = ["--only", "vbd", "--sizes", "lenet-300-100", "--epochs", "1"]
    run_cells(four, options(four, folder, *wish))
    assert seen["compile"] is False
    run_cells(four, options(four, folder, *wish, "--compile"))
    assert seen["compile"] is True


def test_rows_without_a_bound_are_not_compiled(folder):
    toy = table(("a", "b"), ("1",))
    toy = replace(toy, methods={**toy.methods, "b": replace(toy.methods["b"], members=True)})
    run_cells(toy, options(toy, folder, "--compile"))
    records = Results(folder / "results", "toy").records()
    assert [records[cell(name)]["compiled"] for name in "ab"] == [False, True]
