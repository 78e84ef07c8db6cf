"""Files that were cut short, changed, forged or half written: refused with an error that names them, and nothing lost."""

import json
import os
import random
import resource
import signal
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import nn

import pyro_vbd as vbd
from examples.paper.results import Results
from examples.reporting import write
from pyro_vbd.training.checkpoint import previous_of
from pyro_vbd.whole_file import checksum
from tests.digits import pair
from tests.paper.toy import cell


class Format(NamedTuple):
    """How a kind of file is written, with a number in it, and what is read of it."""

    save: Callable[[Path, int], Any]
    load: Callable[[Path], Any]


def network(number: int = 0) -> nn.Sequential:
    torch.manual_seed(number)
    return nn.Sequential(nn.Linear(20, 30), nn.ReLU(), nn.BatchNorm1d(30), nn.Linear(30, 5))


def sparse(number: int) -> nn.Sequential:
    net = network(number)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(torch.rand_like(parameter) < 0.3)
    return net


def save_records(path: Path, number: int) -> None:
    results = Results(path.parent, "toy")
    results.path = path
    for seed in range(8):
        results.add(cell(seed=seed), {"metrics": {"error": 1.0 + number, "layers": [1, 2, 3]}, "seconds": 3.5 * seed})


def load_records(path: Path) -> dict[Any, Any]:
    results = Results(path.parent, "toy")
    results.path = path
    return {repr(cell): record for cell, record in results.records().items()}


FORMATS = {
    "checkpoint": Format(
        lambda path, number: vbd.save_checkpoint(
            path, {"x": torch.full((50,), 1.0 + number), "history": [{"loss": 1.5}] * 5}
        ),
        lambda path: {name: str(value) for name, value in vbd.load_checkpoint(path).items()},
    ),
    "sparse network": Format(
        lambda path, number: vbd.save_sparse(sparse(number), path),
        lambda path: {name: str(value) for name, value in vbd.load_sparse(path, network()).state_dict().items()},
    ),
    "results": Format(save_records, load_records),
}


def damaged(content: bytes, chance: random.Random) -> bytes:
    """The content cut short, with some bits flipped, a part overwritten, left out, doubled or put in."""
    start = chance.randrange(len(content))
    end = min(len(content), start + chance.choice([1, 10, 200]))
    flipped = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 30])):
        flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    noise = chance.randbytes(end - start)
    ways = [
        content[:start],
        bytes(flipped),
        content[:start] + noise + content[end:],
        content[:start] + bytes(end - start) + content[end:],
        content[:start] + content[end:],
        content[:end] + content[start:],
        content[:start] + noise + content[start:],
    ]
    return chance.choice(ways[:2] + ways)


def whole_or_message(load: Callable[[Path], Any], path: Path, whole: dict[Any, Any]) -> str | None:
    """Why a file is refused; None, where what is read of it is part of what was written."""
    try:
        found = load(path)
    except ValueError as error:
        return str(error)
    assert found.items() <= whole.items()
    return None


@pytest.mark.parametrize("kind", FORMATS)
def test_a_thousand_damages(kind, tmp_path):
    save, load = FORMATS[kind]
    path = tmp_path / "file"
    save(path, 0)
    content, whole, chance = path.read_bytes(), load(path), random.Random(0)
    refused = 0
    for _ in range(1000):
        bad = damaged(content, chance)
        path.write_bytes(bad)
        message = whole_or_message(load, path, whole)
        if message is None:  # lines of a table may be gone, and their cells run again
            assert kind == "results" or bad == content
        else:
            refused += 1
            assert str(path) in message
        assert path.read_bytes() == bad, "reading changed the file"
    assert refused > (950 if kind != "results" else 800)


@pytest.mark.parametrize("kind", FORMATS)
def test_an_interrupted_write_leaves_the_last_good_file(kind, tmp_path):
    """The system refuses to write more than some bytes, as it does where the disk is full."""
    save, load = FORMATS[kind]
    path = tmp_path / "file"
    save(path, 0)
    files, whole = sorted(os.listdir(tmp_path)), load(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(path, 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, kept)
    assert load(path) == whole
    assert sorted(os.listdir(tmp_path)) == files


def test_a_run_on_a_full_disk_stops_and_goes_on_later(tmp_path):
    x, y = torch.randn(20, 64), torch.zeros(20, dtype=torch.long)
    path = tmp_path / "run.ckpt"

    def run(epochs):
        model, guide = pair(20)
        return vbd.fit(model, guide, vbd.Batches(x, y), epochs=epochs, checkpoint=path, seed=0, progress=False)

    run(2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size // 2, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            run(4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, kept)
    assert len(vbd.load_checkpoint(path)["history"]) == 2
    assert sorted(os.listdir(tmp_path)) == ["run.ckpt", "run.ckpt.previous"]
    assert [record["epoch"] for record in run(4).history] == [0, 1, 2, 3]


def test_figures_and_numbers_of_the_examples_are_written_whole(tmp_path):
    def fail(path):
        path.write_text("half")
        raise OSError("the disk is full")

    (tmp_path / "figure.png").write_text("good")
    with pytest.raises(OSError, match="full"):
        write(tmp_path / "figure.png", fail)
    assert (tmp_path / "figure.png").read_text() == "good"
    assert os.listdir(tmp_path) == ["figure.png"]


# --- forged, with a checksum that is right ---------------------------------------------------------------------------


def test_a_damaged_checkpoint_is_not_written_over(tmp_path):
    path = tmp_path / "run.ckpt"
    path.write_bytes(b"pyro_vbd checkpoint 1\n" + b"of an older version")
    model, guide = pair(20)
    with pytest.raises(ValueError, match=r"run.ckpt is no checkpoint of this version of pyro_vbd; delete it to start anew"):
        vbd.fit(model, guide, [(torch.randn(20, 64), torch.zeros(20).long())], epochs=1, checkpoint=path, progress=False)
    assert path.read_bytes().endswith(b"older version")
    assert not previous_of(path).exists()


def forged(change: Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]], path: Path) -> None:
    """Rewrite a sparse file with another header and other blocks, and the checksum of these."""
    magic, _, payload = path.read_bytes().partition(b"\n")
    content = zlib.decompress(payload[65:])
    (length,) = struct.unpack_from("<Q", content)
    header, blocks = change(json.loads(content[8 : 8 + length]), content[8 + length :])
    text = json.dumps(header).encode()
    new = zlib.compress(struct.pack("<Q", len(text)) + text + blocks)
    path.write_bytes(magic + b"\n" + checksum(new) + new)


def with_entry(**changes: Any) -> Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]:
    def change(header, blocks):
        header["tensors"][0].update(changes)
        return header, blocks

    return change


def with_first_gap_below_zero(header, blocks):
    header["tensors"][0]["gaps"] = "int8"
    return header, b"\xf0" + blocks[1:]


def with_module(**changes: Any) -> Callable[[dict[str, Any], bytes], tuple[dict[str, Any], bytes]]:
    def change(header, blocks):
        header["description"]["modules"]["0"].update(changes)
        return header, blocks

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda header, blocks: (header, blocks + bytes(2**25)), "unpacks to more than"),
        (lambda header, blocks: (header, blocks[:-50]), "not of this Sequential"),
        (lambda header, blocks: ([], blocks), "not of this Sequential"),
        (lambda header, blocks: ({}, blocks), "not of this Sequential"),
        (with_entry(dtype="load"), "'load' is no type of numbers"),
        (with_entry(dtype="__builtins__"), "not of this Sequential"),
        (with_entry(shape=[10**6, 10**6]), "no place"),
        (with_entry(name="other"), "no place"),
        (with_entry(count=10**12), "not of this Sequential"),
        (with_entry(same_as="0.bias"), "'0.bias'"),
        (with_entry(gaps="int64"), "not of this Sequential"),
        (with_first_gap_below_zero, "'0.weight' are out of order"),
        (with_module(in_features=10**9), "a layer of size 1000000000"),
        (with_module(type="Popen"), "'Popen'"),
        (with_module(in_features="20"), "not of this Sequential"),
        (with_module(other=1), "other"),
    ],
)
def test_a_forged_sparse_file(change, message, tmp_path):
    path = tmp_path / "file"
    vbd.save_sparse(sparse(0), path)
    forged(change, path)
    with pytest.raises(ValueError, match=message) as caught:
        vbd.load_sparse(path, network())
    assert "file is not of this Sequential" in str(caught.value)


def test_a_record_that_was_changed_by_hand(tmp_path):
    save_records(tmp_path / "file", 0)
    (tmp_path / "file").write_text((tmp_path / "file").read_text().replace('"error": 1.0', '"error": 0.5', 1))
    with pytest.raises(
        ValueError, match=r"file:1 does not match its checksum: delete the line, and the cell .* runs again"
    ):
        load_records(tmp_path / "file")
