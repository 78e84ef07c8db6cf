"""Programs whose memory is watched, each in a process of its own: what they held after a third of the work, and at its end.

python -m tests.memory_runs run 10000 eager cpu
"""

import gc
import json
import os
import sys
import tempfile
from pathlib import Path

import pyro
import torch

import pyro_vbd as vbd
from pyro_vbd.compiling import compiled_step
from tests.digits import pair

MB = 2**20


def memory(device: str) -> float:
    """Megabytes that are held after a garbage collection: on the GPU, or of the process."""
    gc.collect()
    if device.startswith("cuda"):
        return torch.cuda.memory_allocated() / MB
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / MB


def data(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(count, 64), torch.randint(10, (count,))


def run(steps: int, compile: bool, device: str) -> tuple[float, float]:
    """One run of so many steps."""
    held: list[float] = []
    model, guide = pair(500)
    vbd.fit(model, guide, vbd.Batches(*data(500), batch_size=10), epochs=steps // 50, progress=False, compile=compile,
            callbacks=[lambda _: held.append(memory(device))])  # fmt: skip
    return held[len(held) // 3], held[-1]


def runs(count: int, compile: bool, device: str) -> tuple[float, float]:
    """So many runs with all that belongs to one, of two priors in turn."""
    x, y = data(60)
    held = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(count):
            model, guide = pair(60, prior=vbd.priors.Horseshoe() if number % 2 else None)
            file = Path(folder, f"{number}.ckpt")
            vbd.fit(model, guide, vbd.Batches(x, y, batch_size=20), epochs=1, progress=False, compile=compile,
                    checkpoint=file, validation=vbd.Batches(x, y))  # fmt: skip
            vbd.predict(model, guide, x, num_samples=2)
            file.unlink()
            held.append(memory(device))
    assert not dict(pyro.get_param_store())
    return held[count // 3], held[-1]


def prediction(count: int, compile: bool, device: str) -> tuple[float, float]:
    """A second prediction of so many data, without what it returns: the allocator keeps the room that the first took."""
    x, _ = data(count)
    model, guide = pair()
    held = []
    for _ in range(2):
        found = vbd.predict(model, guide, x, num_samples=5)
        held.append(memory(device) - sum(part.nbytes for part in vars(found).values()) / MB)
        del found
    return held[0], held[1]


if __name__ == "__main__":
    what, count, how, device = sys.argv[1:]
    torch.set_num_threads(1)
    if how == "traced":  # what Inductor makes of a graph takes seconds, and is kept for good by torch
        compiled_step.machine_code = lambda graph, *_: graph
    with torch.device(device):
        print(json.dumps(globals()[what](int(count), how != "eager", device)))
