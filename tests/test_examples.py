"""Every program in examples/ runs, with small flags; a program that is not listed here fails the last test."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import pyro_vbd as vbd
from tests.paper.small_data import write_cifar10, write_mnist, write_svhn
from tests.programs import EXAMPLES, Program

#: The paper's tables, on small random data, into a folder of their own.
PAPER = ["--data-dir", "{out}/data", "--results", "{out}/results", "--work", "{out}/work", "--device", "{device}",
         "--epochs", "1", "--quiet"]  # fmt: skip

#: One round of a benchmark; nothing is compiled, and no other library is needed.
BENCHMARK = ["--rounds", "1", "--burst", "1", "--out", "{out}", "--device", "{device}"]

COMMANDS = {
    "paper/table1.py": [*PAPER, "--sizes", "100"],
    "paper/table2.py": [*PAPER, "--sizes", "1", "--only", "adversarial", "concrete", "vbd"],
    "paper/table3.py": [*PAPER, "--only", "gaussian", "vd"],
    "paper/table4.py": [*PAPER, "--sizes", "lenet-5"],
    "paper/table5.py": [*PAPER, "--selection", "validation"],
    "paper/render.py": ["--results", "{out}/results"],
    "calibration.py": "--epochs 2 --seeds 2 --jobs 1 --data diabetes wine iris --out {out} --device {device}".split(),
    "compare_priors.py": "--epochs 1 --seeds 1 --jobs 1 --out {out} --device {device}".split(),
    "benchmarks/step_time.py": ["--nets", "784-300-100-10", "--only", "hand", "pyro_vbd, eager", "plain Pyro", *BENCHMARK],
    "benchmarks/scaling.py": [
        "--widths",
        "20",
        "30",
        "--depths",
        "3",
        "--only",
        "pyro_vbd, eager",
        "--draws",
        "12",
        *BENCHMARK,
    ],
    "benchmarks/members.py": ["--nets", "784-16-10", "--members", "2", "--kinds", "eager", *BENCHMARK],
    "benchmarks/render.py": ["--out", "{out}/scaling.md"],
    "benchmarks/time_to_loss.py": "--epochs 2 --seeds 1 --estimators weights --out {out} --device {device}".split(),
    "mcmc_ground_truth.py": ["--steps", "3", "--warmup", "2", "--draws", "4", "--out", "{out}"],
    "distributed.py": "--epochs 2 --checkpoint {out}/run.ckpt --weights {out}/q.pt --device {device}".split(),
    "compress.py": ["--epochs", "3", "--out", "{out}", "--device", "{device}"],
}


def run(program: str, tmp_path: Path, device, *extra: str) -> str:
    if program.startswith("paper/table"):
        for write in (write_mnist, write_cifar10, write_svhn):
            write(tmp_path / "data", train=60, test=20)
    flags = [flag.format(out=tmp_path, device=device) for flag in COMMANDS[program]]
    done = Program(EXAMPLES / program, *flags, *extra, folder=EXAMPLES.parent, prints=tmp_path / "prints")
    assert done.wait() == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("program", COMMANDS)
def test_runs(program, tmp_path, device):
    pytest.importorskip("sklearn")
    assert run(program, tmp_path, device)


@pytest.mark.parametrize("members", ["1", "2"])
def test_compare_priors_writes_a_table_and_a_figure(members, tmp_path, device):
    pytest.importorskip("sklearn")
    wish = ["--priors", "vbd", "deterministic", "--validate", "--seeds", "3", "--members", members]
    printed = run("compare_priors.py", tmp_path, device, *wish)
    assert "error %" in printed
    assert (tmp_path / "digits.png").stat().st_size > 10_000
    results = json.loads((tmp_path / "digits.json").read_text())
    assert set(results) == {"vbd", "deterministic"}
    assert all(0 <= run["error"] <= 100 for runs in results.values() for run in runs)
    assert [len(runs) for runs in results.values()] == [3, 3]
    assert all(len({run["nll"] for run in runs}) == 3 for runs in results.values())  # each seed is a run of its own


def test_mcmc_ground_truth_writes_a_table_and_a_figure(tmp_path, device):
    pytest.importorskip("arviz")
    printed = run("mcmc_ground_truth.py", tmp_path, device, "--problems", "regression")
    assert "NUTS | gamma*" in printed
    assert (tmp_path / "posteriors.png").stat().st_size > 10_000
    checks = json.loads((tmp_path / "posteriors.json").read_text())["regression"]["checks"]
    assert set(checks["nuts"]) == {"r_hat", "ess", "divergent", "seconds"}
    assert set(checks["guide"]) == {"pareto_k", "seconds"}


@pytest.mark.parametrize("net", ["mlp", "convnet"])
def test_compress_writes_what_it_says(net, tmp_path, device):
    pytest.importorskip("sklearn")
    flags = ["--net", net, "--gate-weights", "1", "30", "--max-loss", "100", "--epochs", "20", "--prune-loss", "5"]
    printed = run("compress.py", tmp_path, device, *flags, "--resume")
    for kind in ("training", "curve", "report", "gates"):
        assert (tmp_path / f"digits-{net}-{kind}.png").stat().st_size > 5_000
    numbers = json.loads((tmp_path / f"digits-{net}.json").read_text())
    rows = numbers["networks"]
    assert [row["name"] for row in rows] == ["plain", "cut by gates, KL x 1", "cut by gates, KL x 30", "weights removed"]
    assert all(row["name"] in printed for row in rows)
    assert all([found["batch_size"] for found in row["latency"]] == [1, 128] for row in rows[1:])
    # what goes on from the gates is the smaller, for every error is good enough
    assert rows[2]["multiply_adds"] < rows[1]["multiply_adds"] < rows[0]["multiply_adds"]
    assert numbers["gates"]["total"]["multiply_adds_left"] == rows[2]["multiply_adds"]
    assert numbers["report"]["total"]["weights"] == rows[2]["weights"] > rows[3]["weights"]
    assert numbers["bytes_on_disk"]["sparse"] == (tmp_path / f"digits-{net}.sparse").stat().st_size == rows[3]["bytes"]
    allowed = rows[0]["validation_error"] + 5.0
    good = [point for point in numbers["sweep"] if 100 * point["error"] <= allowed]
    assert numbers["threshold"] == max(good, key=lambda point: point["ratio"])["threshold"]
    again = run("compress.py", tmp_path, device, *flags, "--resume")
    assert again.splitlines()[-1] == printed.splitlines()[-1]


def test_compress_keeps_the_plain_network_where_gates_cost_too_much(tmp_path, device):
    pytest.importorskip("sklearn")
    run("compress.py", tmp_path, device, "--gate-weights", "1000", "--max-loss", "-100", "--prune-loss", "-100")
    numbers = json.loads((tmp_path / "digits-mlp.json").read_text())
    assert numbers["gates"] is None
    assert numbers["report"]["total"]["weights"] == numbers["networks"][0]["weights"]
    lowest = min(point["error"] for point in numbers["sweep"])  # none is good enough: the best one
    assert next(p for p in numbers["sweep"] if p["threshold"] == numbers["threshold"])["error"] == lowest


@pytest.mark.parametrize(("data", "net"), [("mnist", "lenet-300-100"), ("cifar10", "resnet-8")])
def test_compress_on_larger_pictures(data, net, tmp_path, device):
    """Random pictures in the files that the real ones come in."""
    {"mnist": write_mnist, "cifar10": write_cifar10}[data](tmp_path / "data", train=90, test=20)
    flags = "--data", data, "--net", net, "--data-dir", str(tmp_path / "data"), "--epochs", "1"
    run("compress.py", tmp_path, device, *flags)
    rows = json.loads((tmp_path / f"{data}-{net}.json").read_text())["networks"]
    assert rows[-1]["weights"] < rows[0]["weights"]


def distributed_flags(tmp_path: Path, name: str) -> list[str]:
    return ["--epochs", "8", "--checkpoint", str(tmp_path / f"{name}.ckpt"), "--weights", str(tmp_path / f"{name}.pt")]


def torchrun(tmp_path: Path, name: str) -> subprocess.Popen:
    """Two processes under torchrun, which starts them again once if one dies."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command = [*launcher, str(EXAMPLES / "distributed.py"), *distributed_flags(tmp_path, name)]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=EXAMPLES.parent, env=environment, stdout=subprocess.PIPE, text=True)


def two_processes(tmp_path: Path, name: str) -> list[Program]:
    """Two processes of one run, as torchrun starts them."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": name,
              "TORCHELASTIC_RESTART_COUNT": "0", "folder": EXAMPLES.parent}  # fmt: skip
    flags = distributed_flags(tmp_path, name)
    return [
        Program(EXAMPLES / "distributed.py", *flags, prints=tmp_path / rank, RANK=rank, LOCAL_RANK=rank, **shared)
        for rank in "01"
    ]


def test_distributed_goes_on_when_a_process_is_killed(tmp_path):
    whole = two_processes(tmp_path, "whole")
    assert [process.wait() for process in whole] == [0, 0], whole[0].stderr
    assert "2 processes" in whole[0].stdout
    with torchrun(tmp_path, "killed") as killed:
        while not (tmp_path / "killed.ckpt.previous").exists():
            assert killed.poll() is None, "it ended too early"
            time.sleep(0.02)
        children = Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()
        os.kill(int(children[-1]), signal.SIGKILL)
        assert "2 processes" in killed.stdout.read()
    ends = [torch.load(tmp_path / f"{name}.pt", weights_only=True) for name in ("whole", "killed")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    states = [vbd.load_checkpoint(tmp_path / f"{name}.ckpt") for name in ("whole", "killed")]
    assert [len(state["history"]) for state in states] == [8, 8]


@pytest.mark.parametrize(
    "tutorial", sorted(path.name for path in (EXAMPLES / "tutorials").iterdir() if path.suffix == ".py")
)
def test_tutorials_end_in_a_picture(tutorial, tmp_path):
    """With two epochs for the many that they ask for."""
    for package in ("arviz", "matplotlib", "sklearn"):
        pytest.importorskip(package)
    source, longer = re.subn(r"epochs=\d+", "epochs=2", (EXAMPLES / "tutorials" / tutorial).read_text())
    assert longer
    assert source.count("# %%") >= 4
    (tmp_path / tutorial).write_text(source)
    done = Program(tmp_path / tutorial, folder=tmp_path, prints=tmp_path / "prints", MPLBACKEND="Agg")
    assert done.wait() == 0, done.stderr
    picture = Path("out/tutorials", tutorial).with_suffix(".png")
    assert f"figure: {picture}" in done.stdout
    assert (tmp_path / picture).stat().st_size > 10_000


def test_every_program_is_listed():
    programs = {p.relative_to(EXAMPLES).as_posix() for p in EXAMPLES.rglob("*.py") if "__main__" in p.read_text()}
    assert programs == set(COMMANDS)
