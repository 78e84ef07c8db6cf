import json
import multiprocessing
import threading

import pytest
from filelock import FileLock

from examples.paper.results import Results
from tests.paper.toy import cell
from tests.programs import CONTEXT


def test_records_come_back_sorted(tmp_path):
    results = Results(tmp_path, "toy")
    assert results.records() == {}
    results.add(cell("b"), {"metrics": {"error": 2.0}})
    results.add(cell("a", seed=1), {"metrics": {"error": 1.0}})
    results.add(cell("a", seed=0), {"metrics": {"error": 3.0}})
    found = Results(tmp_path, "toy").records()
    assert list(found) == [cell("a", seed=0), cell("a", seed=1), cell("b")]
    assert found[cell("b")]["metrics"] == {"error": 2.0}
    assert len((tmp_path / "tabletoy.jsonl").read_text().splitlines()) == 3


def test_a_line_that_is_no_record(tmp_path):
    (tmp_path / "tabletoy.jsonl").write_text('{"table": "toy"}\n')
    with pytest.raises(ValueError, match=r"tabletoy.jsonl:1 is no record"):
        Results(tmp_path, "toy").records()


def test_a_cell_that_is_there_twice(tmp_path):
    results = Results(tmp_path, "toy")
    results.add(cell(), {})
    results.path.write_text(results.path.read_text() * 2)
    with pytest.raises(ValueError, match="a second time"):
        results.records()


def test_a_checksum_is_of_the_content_however_it_is_laid_out(tmp_path):
    results = Results(tmp_path, "toy")
    results.add(cell(), {"metrics": {"error": 2.0, "neurons": [1, 2]}})
    record = json.loads(results.path.read_text())
    results.path.write_text(json.dumps(dict(reversed(record.items()))) + "\n")
    assert results.records()[cell()]["metrics"]["error"] == 2.0
    record["metrics"]["error"] = 1.0
    results.path.write_text(json.dumps(record) + "\n")
    with pytest.raises(ValueError, match=r"tabletoy.jsonl:1 does not match its checksum: .* the cell toy a 1 seed 0 runs"):
        results.records()


def hold(folder, ready, go):
    with Results(folder, "toy").claim(cell()) as ours:
        ready.put(ours)
        go.get()


def test_a_claim_is_ours_alone_until_its_holder_dies(tmp_path):
    ready, go = CONTEXT.Queue(), CONTEXT.Queue()
    holder = CONTEXT.Process(target=hold, args=(tmp_path, ready, go), daemon=True)
    holder.start()
    assert ready.get(timeout=60)
    results = Results(tmp_path, "toy")
    with results.claim(cell()) as ours:
        assert not ours
    with results.claim(cell("b")) as ours:
        assert ours
    holder.kill()
    holder.join()
    with results.claim(cell()) as ours:
        assert ours


def test_a_cell_that_has_run_is_not_to_be_claimed(tmp_path):
    results = Results(tmp_path, "toy")
    results.add(cell(), {})
    with results.claim(cell()) as ours:
        assert not ours


def test_a_writer_waits_for_another(tmp_path):
    results = Results(tmp_path, "toy")
    results.add(cell(seed=0), {})
    with FileLock(results.claims / f"{results.path.name}.lock"):
        writer = threading.Thread(target=results.add, args=(cell(seed=1), {}))
        writer.start()
        writer.join(0.3)
        assert writer.is_alive()
        assert len(results.records()) == 1
    writer.join()
    assert len(results.records()) == 2


def add(folder, seed):
    Results(folder, "toy").add(cell(seed=seed), {"seed": seed})


def test_writers_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=add, args=(tmp_path, seed)) for seed in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(Results(tmp_path, "toy").records()) == 8
