import enum
import io
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from pyro_vbd.training import checkpoint
from pyro_vbd.training.checkpoint import load_checkpoint, previous_of, save_checkpoint
from pyro_vbd.whole_file import write_checked


def state(value):
    return {"tensor": torch.full((3, 2), value), "list": [1, 2.5, "three", None], "dict": {"a": True}}


def test_round_trip(tmp_path, device):
    save_checkpoint(tmp_path / "folder" / "run.pt", state(1.5))
    loaded = load_checkpoint(str(tmp_path / "folder" / "run.pt"))
    assert torch.equal(loaded["tensor"], torch.full((3, 2), 1.5))
    assert loaded["tensor"].device.type == device.type
    assert loaded["list"] == [1, 2.5, "three", None]
    assert load_checkpoint(tmp_path / "folder" / "run.pt", map_location="meta")["tensor"].device.type == "meta"


def test_numbers_of_numpy_are_read_again(tmp_path):
    numpy = pytest.importorskip("numpy")
    values = {"lr": numpy.float64(0.5), "step": numpy.int64(3), "rates": numpy.ones(2), "list": [numpy.bool_(True)]}
    save_checkpoint(tmp_path / "run.pt", values)
    loaded = load_checkpoint(tmp_path / "run.pt")
    assert loaded == {"lr": 0.5, "step": 3, "rates": [1.0, 1.0], "list": [True]}
    assert type(loaded["lr"]) is float


class Pair(NamedTuple):
    first: float
    second: list[float]


def test_kinds_of_dict_and_tuple_are_read_as_plain_ones(tmp_path):
    """A file that held a class of the user's, or of torch's, would be written and never read again."""
    numpy = pytest.importorskip("numpy")
    highest = torch.tensor([[1.0, 3.0], [4.0, 2.0]]).max(1)  # a torch.return_types.max
    values = {
        "pair": Pair(1.0, [2.0]), "max": highest, "count": Counter("aab"), "by": defaultdict(float, {"a": 0.5}),
        "classes": {numpy.int64(3): 0.5, (numpy.int64(1), "a"): 0.25},
    }  # fmt: skip
    save_checkpoint(tmp_path / "run.pt", values)
    loaded = load_checkpoint(tmp_path / "run.pt")
    maxima, places = loaded.pop("max")
    assert torch.equal(maxima, highest.values)
    assert torch.equal(places, highest.indices)
    assert loaded == {
        "pair": (1.0, [2.0]), "count": {"a": 2, "b": 1}, "by": {"a": 0.5}, "classes": {3: 0.5, (1, "a"): 0.25},
    }  # fmt: skip
    assert {type(loaded["pair"]), type(loaded["count"]), type(loaded["by"])} == {tuple, dict}


class Split(enum.StrEnum):
    TEST = "test"


@pytest.mark.parametrize(("value", "place"), [
    ({"split": Split.TEST}, r"state\['history'\]\[0\]\['split'\]"),
    ({Split.TEST: 1.0}, r"a key of state\['history'\]\[0\]"),
    ({"seen": {1, 2}}, r"state\['history'\]\[0\]\['seen'\]"),
])  # fmt: skip
def test_what_could_not_be_read_again_is_not_written(tmp_path, value, place):
    with pytest.raises(ValueError, match=rf"^{place} is a (Split|set), which a checkpoint cannot hold"):
        save_checkpoint(tmp_path / "run.pt", {"history": [value]})
    assert not list(tmp_path.iterdir())


def test_previous_one_is_kept_and_nothing_else(tmp_path):
    path = tmp_path / "run.pt"
    for value in (1.0, 2.0, 3.0):
        save_checkpoint(path, state(value))
    assert load_checkpoint(path)["tensor"][0, 0] == 3
    assert load_checkpoint(previous_of(path))["tensor"][0, 0] == 2
    assert {p.name for p in tmp_path.iterdir()} == {"run.pt", "run.pt.previous"}


@pytest.mark.parametrize("position", [0, 5, 30, 60, 86, 87, 200, -1])
def test_a_changed_byte_is_found(tmp_path, position):
    path = tmp_path / "run.pt"
    save_checkpoint(path, state(1.0))
    save_checkpoint(path, state(2.0))
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"run.pt.*(damaged|no checkpoint).*run\.pt\.previous"):
        load_checkpoint(path)
    assert load_checkpoint(previous_of(path))["tensor"][0, 0] == 1


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_found(tmp_path, share):
    path = tmp_path / "run.pt"
    save_checkpoint(path, state(1.0))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"run\.pt"):
        load_checkpoint(path)


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_no_code_runs(tmp_path):
    payload = io.BytesIO()
    torch.save({"x": Malice(tmp_path / "done")}, payload)
    write_checked(tmp_path / "run.pt", checkpoint._MARK, payload.getvalue())
    with pytest.raises(ValueError, match=r"run.pt holds more than tensors, numbers and words, and was not read"):
        load_checkpoint(tmp_path / "run.pt")
    assert not (tmp_path / "done").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the device is there")
def test_tensors_of_a_device_that_is_not_there_are_no_foreign_objects(tmp_path):
    save_checkpoint(tmp_path / "run.pt", state(1.0))
    with pytest.raises(RuntimeError, match="map_location"):
        load_checkpoint(tmp_path / "run.pt", map_location="cuda")


def test_a_failed_write_leaves_the_last_file_and_no_litter(tmp_path):
    path = tmp_path / "run.pt"
    save_checkpoint(path, state(1.0))
    with pytest.raises(ValueError, match=r"state\['history'\]\[1\]\['x'\] is a Malice, which a checkpoint cannot hold"):
        save_checkpoint(path, {"history": [{}, {"x": Malice(path)}]})
    assert load_checkpoint(path)["tensor"][0, 0] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["run.pt"]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.pt")
