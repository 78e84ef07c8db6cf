"""Networks in the formats that others read: safetensors and ONNX."""

from __future__ import annotations

import importlib
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from pyro_vbd.compression.differences import difference, tensors
from pyro_vbd.compression.skeleton import describe, fill, rebuild
from pyro_vbd.compression.tracing import call_network
from pyro_vbd.inputs import arguments, length
from pyro_vbd.modes import in_mode
from pyro_vbd.whole_file import whole_file

__all__ = ["load_safetensors", "save_onnx", "save_safetensors"]


def save_safetensors(net: nn.Module, path: str | os.PathLike[str]) -> int:
    """Write the parameters and buffers of a network, and the sizes of its layers, as a safetensors file.

    Returns:
        The size of the file in bytes.

    Raises:
        ImportError: without the package safetensors.
    """
    safetensors = _need("safetensors.torch")
    state = {name: value.detach().cpu().contiguous().clone() for name, value in net.state_dict().items()}
    content = safetensors.save(state, metadata={"pyro_vbd": json.dumps(describe(net))})
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
    return Path(path).stat().st_size


def load_safetensors(path: str | os.PathLike[str], net: nn.Module) -> nn.Module:
    """The network of a file of :func:`save_safetensors`, made from the one before the cut; see :func:`load_sparse`.

    Raises:
        ImportError: without the package safetensors.
        ValueError: if the file is of another network, or not from :func:`save_safetensors`.
    """
    safetensors = _need("safetensors")
    try:
        with safetensors.safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no safetensors file, or damaged: {error}") from error
    if "pyro_vbd" not in metadata:
        raise ValueError(f"{path} does not say how wide the layers are: it was not written by save_safetensors")
    try:
        new = rebuild(net, json.loads(metadata["pyro_vbd"]))
        fill(new, state)
    except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        reason = error if isinstance(error, ValueError | RuntimeError) else repr(error)
        raise ValueError(f"{path} is not of this {type(net).__name__}: {reason}") from error
    return new.to(next(net.parameters(), torch.empty(0)).device)


@torch.no_grad()
def save_onnx(net: nn.Module, path: str | os.PathLike[str], inputs: Any, *, tolerance: float = 1e-4) -> int:
    """Write a network as ONNX, for batches of any size, and check it with onnxruntime.

    Args:
        net: a network, cut or not; exported in evaluation mode.
        path: the file; it is replaced when the new one is whole and computes what the network does.
        inputs: example inputs, of two data or more: a tensor, or a tuple or dict of them.
        tolerance: how far onnxruntime's outputs may be from torch's, relative to the largest; truth values and whole
            numbers have to be the same.

    Returns:
        The size of the file in bytes.

    Raises:
        ImportError: without the packages onnx, onnxscript and onnxruntime.
        ValueError: for fewer than two data.
        RuntimeError: if the outputs differ.
    """
    for package in ("onnx", "onnxscript"):
        _need(package)
    runtime = _need("onnxruntime")
    args, kwargs = arguments(inputs)
    if (count := length(inputs) or 0) < 2:
        raise ValueError(
            f"the example inputs hold {count} data: pass two or more, since the file is for batches of any size"
        )
    batch = torch.export.Dim("batch")
    shapes = tree_map(
        lambda x: {0: batch} if isinstance(x, Tensor) and x.dim() and len(x) == count else None, kwargs or args
    )
    with whole_file(path) as temporary, in_mode(net, False), _quiet():
        program = torch.onnx.export(net, args, kwargs=kwargs, dynamo=True, verbose=False, dynamic_shapes=shapes)
        assert program is not None
        program.save(str(temporary), external_data=False)
        session = runtime.InferenceSession(temporary.read_bytes(), providers=["CPUExecutionProvider"])
        names = [argument.name for argument in session.get_inputs()]
        given = zip(names, tensors((args, kwargs)), strict=True)
        found = session.run(None, {name: value.cpu().numpy() for name, value in given})
        for ours, theirs in zip(tensors(call_network(net, inputs)), found, strict=True):
            most, largest = difference(ours.cpu(), torch.from_numpy(theirs))
            if not most <= tolerance * max(largest, 1e-30):
                raise RuntimeError(f"onnxruntime's outputs differ from torch's by {most:.2g}: {path} was not written")
    return Path(path).stat().st_size


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own deprecation warnings and progress notes from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _need(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise ImportError(f"this export needs {package}: pip install 'pyro-vbd[export]'") from error
