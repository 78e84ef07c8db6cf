"""A network on disk as the places and values of its weights that are not 0, and back."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pyro_vbd.compression.skeleton import describe, fill, rebuild
from pyro_vbd.whole_file import read_checked, write_checked

__all__ = ["load_sparse", "save_sparse"]

# Version 1 held a shared tensor once for each of its names, version 2 tuples in calls as lists; the same code reads them.
_MARKS = (b"pyro_vbd sparse network 3\n", b"pyro_vbd sparse network 2\n", b"pyro_vbd sparse network 1\n")

# What reading a file of another network, or a forged one, may run into.
_MISFITS = (
    ValueError, RuntimeError, zlib.error, struct.error, ArithmeticError, LookupError, TypeError, AttributeError,
)  # fmt: skip


@torch.no_grad()
def save_sparse(net: nn.Module, path: str | os.PathLike[str], *, bits: int | None = None) -> int:
    r"""Write a network as gaps between its nonzero weights and their values, compressed, with a checksum.

    With ``bits=8`` each weight tensor is stored as integers, :math:`q = \mathrm{round}(127\, w / \max|w|)`: an error of at
    most max\|w\| / 254 per weight. Biases, norms, gates and buffers stay as they are. Without, every number comes back
    exactly. A tensor that modules share is written once, and shared again when it is loaded.

    Args:
        net: a network, cut or not.
        path: the file; it is replaced when the new one is whole.
        bits: 8, or None for the weights' own type.

    Returns:
        The size of the file in bytes.

    Raises:
        ValueError: for another number of bits, or a weight tensor with numbers that are not finite.
    """
    if bits not in (None, 8):
        raise ValueError(f"bits={bits} is not available: use 8, or None for the weights as they are")
    entries: list[dict[str, Any]] = []
    blocks: list[bytes] = []
    names: dict[int, str] = {}
    for name, tensor in net.state_dict(keep_vars=True).items():
        if (first := names.setdefault(id(tensor), name)) != name:
            entries.append({"name": name, "same_as": first})
            continue
        is_weight = isinstance(tensor, nn.Parameter) and tensor.dim() > 1 and tensor.is_floating_point()
        entry, parts = _encode(name, tensor.detach().cpu().contiguous(), is_weight, bits)
        entries.append(entry)
        blocks += parts
    header = json.dumps({"description": describe(net), "tensors": entries}).encode()
    payload = zlib.compress(struct.pack("<Q", len(header)) + header + b"".join(blocks), 9)
    write_checked(path, _MARKS[0], payload)
    return Path(path).stat().st_size


@torch.no_grad()
def load_sparse(path: str | os.PathLike[str], net: nn.Module) -> nn.Module:
    """The network of a file of :func:`save_sparse`.

    Args:
        path: the file.
        net: the network before it was cut, with any weights (for a network with gates, the one with gates); left as it
            was. It says what is computed; the file, how wide each layer is.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if the file is of another kind, cut short or changed, or of another network.
    """
    payload = read_checked(path, _MARKS, "sparse network", "export it again")
    try:
        header, blocks = _unpacked(payload, net)
        new = rebuild(net, header["description"])
        state = _decode(header["tensors"], blocks, {name: value.shape for name, value in new.state_dict().items()})
        fill(new, state)
        _share(new, {entry["name"]: entry["same_as"] for entry in header["tensors"] if "same_as" in entry})
    except _MISFITS as error:
        reason = error if isinstance(error, ValueError | RuntimeError) else repr(error)
        raise ValueError(f"{path} is not of this {type(net).__name__}: {reason}") from error
    return new.to(next(net.parameters(), torch.empty(0)).device)


def _unpacked(payload: bytes, net: nn.Module) -> tuple[dict[str, Any], bytearray]:
    """The header and the blocks; refused where they claim to hold more than the whole network."""
    most = 2**24 + 2 * sum(value.numel() * value.itemsize for value in net.state_dict().values())
    unpacker = zlib.decompressobj()
    content = unpacker.decompress(payload, most)
    if not unpacker.eof:
        raise ValueError(f"it unpacks to more than {most} bytes")
    (length,) = struct.unpack_from("<Q", content)
    header = json.loads(content[8 : 8 + length])
    shapes = [list(value.shape) for value in net.state_dict().values()]
    largest = max(_numbers([describe(net)["modules"], shapes]), default=0)
    if (claimed := max(_numbers(header["description"]["modules"]), default=0)) > largest:
        raise ValueError(f"it claims a layer of size {claimed}, where the largest has {largest}")
    return header, bytearray(content[8 + length :])


def _numbers(description: Any) -> Iterator[int]:
    """All whole numbers of a description."""
    return (leaf for leaf in tree_leaves(description) if isinstance(leaf, int))


def _encode(name: str, tensor: Tensor, is_weight: bool, bits: int | None) -> tuple[dict[str, Any], list[bytes]]:
    """A description of how a tensor is stored, and its blocks."""
    entry: dict[str, Any] = {"name": name, "shape": list(tensor.shape), "dtype": _dtype_name(tensor.dtype)}
    flat = tensor.flatten()
    places = (flat != 0).nonzero().flatten()
    values = flat[places]
    if is_weight:
        if not bool(values.isfinite().all()):
            raise ValueError(f"{name!r} holds numbers that are not finite: train it again, or look at what went wrong")
        if bits == 8 and len(values):
            largest = float(values.double().abs().max())
            entry["scale"] = largest / 127.0
            values = (values.double() / entry["scale"]).round().to(torch.int8)
            flat = torch.zeros(len(flat), dtype=torch.int8, device="cpu").index_put_((places,), values)
    gaps = places.diff(prepend=torch.tensor([-1], device="cpu")) - 1
    kind = next(
        k for k in (torch.uint8, torch.int16, torch.int64) if not len(gaps) or int(gaps.max()) <= torch.iinfo(k).max
    )
    sparse = [_bytes(gaps.to(kind)), _bytes(values)]
    if sum(map(len, sparse)) < len(_bytes(flat)):
        entry.update(count=len(values), gaps=_dtype_name(kind))
        return entry, sparse
    return entry, [_bytes(flat)]


def _decode(entries: list[dict[str, Any]], blocks: bytearray, shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """The tensors by name, of the shapes that the network has for them."""
    state: dict[str, Tensor] = {}
    offset = 0

    def read(dtype: torch.dtype, count: int) -> Tensor:
        nonlocal offset
        if not count:
            return torch.empty(0, dtype=dtype, device="cpu")
        found = torch.frombuffer(blocks, dtype=torch.uint8, count=count * dtype.itemsize, offset=offset).clone().view(dtype)
        offset += count * dtype.itemsize
        return found

    for entry in entries:
        if "same_as" in entry:
            state[entry["name"]] = state[entry["same_as"]]
            continue
        if torch.Size(entry["shape"]) != shapes.get(entry["name"]):
            raise ValueError(f"it holds {entry['name']!r} of shape {entry['shape']}, for which there is no place")
        dtype = _dtype(entry["dtype"])
        stored = torch.int8 if "scale" in entry else dtype
        size = torch.Size(entry["shape"]).numel()
        if "count" in entry:
            gaps = read(_dtype(entry["gaps"]), entry["count"]).long()
            if bool((gaps < 0).any()):
                raise ValueError(f"the weights of {entry['name']!r} are out of order")
            places = (gaps + 1).cumsum(0) - 1
            flat = torch.zeros(size, dtype=stored, device="cpu")
            flat[places] = read(stored, entry["count"])
        else:
            flat = read(stored, size)
        if "scale" in entry:
            flat = (flat.double() * entry["scale"]).to(dtype)
        state[entry["name"]] = flat.view(entry["shape"])
    return state


def _share(net: nn.Module, firsts: dict[str, str]) -> None:
    """Let each name stand for the tensor of another."""
    for name, first in firsts.items():
        (owner, _, own), (of, _, key) = name.rpartition("."), first.rpartition(".")
        setattr(net.get_submodule(owner), own, getattr(net.get_submodule(of), key))


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.numel() else b""


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _dtype(name: str) -> torch.dtype:
    found = getattr(torch, name)
    if not isinstance(found, torch.dtype):
        raise TypeError(f"{name!r} is no type of numbers")
    return found
