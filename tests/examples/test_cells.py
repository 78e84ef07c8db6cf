"""Cells that several runners share: each is run once, none is lost, and what a dead runner began is taken over."""

import os
import time
from pathlib import Path

import pytest
import torch
from cells import run_cells

import pyro_vbd as vbd
from tests.programs import CONTEXT


def cell(log: Path, number: int, seconds: float = 0.0) -> dict:
    with log.open("a") as file:
        file.write(f"{number}\n")
    time.sleep(seconds)
    return {"number": number, "tensor": torch.full((2,), float(number)), "list": [1.5, (2, 3)]}


def work(folder: Path, seconds: float, cells: int = 4) -> list[tuple[str, dict]]:
    log = folder / "log"
    return list(run_cells(cell, {f"cell {i}": (log, i, seconds) for i in range(cells)}, "settings", folder / "runs", 1))


def runs(folder: Path) -> list[int]:
    return sorted(int(line) for line in (folder / "log").read_text().split())


def test_in_order_and_once(tmp_path, capsys):
    for _ in range(2):
        found = work(tmp_path, 0.0)
        assert [name for name, _ in found] == [f"cell {i}" for i in range(4)]
        assert [values["number"] for _, values in found] == [0, 1, 2, 3]
        assert torch.equal(found[2][1]["tensor"], torch.full((2,), 2.0))
    assert runs(tmp_path) == [0, 1, 2, 3]
    assert f"4 of 4 runs are read from {tmp_path / 'runs'}: delete it" in capsys.readouterr().out


def test_of_other_settings(tmp_path):
    for settings in ("one", "two"):
        list(run_cells(cell, {"a/b": (tmp_path / "log", 0)}, settings, tmp_path / "runs", 1))
    assert runs(tmp_path) == [0, 0]


def test_runners_at_once_share_the_work_and_one_that_dies_loses_nothing(tmp_path):
    runners = [CONTEXT.Process(target=work, args=(tmp_path, 0.5, 6)) for _ in range(2)]
    for runner in runners:
        runner.start()
    while len(list(tmp_path.glob("runs/*.lock"))) < 2:
        time.sleep(0.01)
        assert runners[0].is_alive() or runners[1].is_alive()
    runners[0].kill()
    runners[1].join(120)
    assert runners[1].exitcode == 0
    assert sorted(set(runs(tmp_path))) == list(range(6))
    assert len(runs(tmp_path)) <= 7  # the cell that the dead one was at, again
    assert [values["number"] for _, values in work(tmp_path, 0.0, 6)] == list(range(6))


def test_a_damaged_file_is_refused(tmp_path):
    work(tmp_path, 0.0, 1)
    (file,) = (path for path in (tmp_path / "runs").iterdir() if path.suffix != ".lock")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="is damaged"):
        work(tmp_path, 0.0, 1)
    os.remove(file)
    assert work(tmp_path, 0.0, 1)


def test_what_a_file_cannot_hold_is_no_result(tmp_path):
    with pytest.raises(ValueError, match=r"\['fit'\] is a VBD_ELBO, which a checkpoint cannot hold"):
        list(run_cells(dict, {"a": ([("fit", vbd.VBD_ELBO())],)}, "", tmp_path, 1))
