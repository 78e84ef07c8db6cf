"""How steps are timed: in turn, so that a noisy machine slows all of them, and by medians; and what memory one takes."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import pyro
import torch
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm

from examples.benchmarks.contenders import CONTENDERS, Step, Unfit
from examples.benchmarks.problems import Problem

__all__ = ["add_memory", "first_steps", "interleaved", "machine", "peak_memory"]


def machine(device: torch.device) -> str:
    """What it all ran on, for the head of a table."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return f"{device} ({name}, {torch.get_num_threads()} threads), torch {torch.__version__}, pyro {pyro.__version__}"


def wait(device: torch.device) -> None:
    """Until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def first_steps(
    problem: Problem, names: Iterable[str], report: Callable[[str], object]
) -> tuple[dict[str, Step], dict[str, float]]:
    """The steps of the contenders that can take part, and the seconds that each took to its first step.

    Args:
        problem: the problem.
        names: of contenders.
        report: takes a sentence for each that is left out.
    """
    pyro.clear_param_store()  # peers give their parameters the same names for any network
    steps, seconds = {}, {}
    for name in names:
        start = time.perf_counter()
        try:
            steps[name] = CONTENDERS[name].step(problem)
        except Unfit as reason:
            report(f"{name} is left out: {reason}")
            continue
        wait(problem.device)
        seconds[name] = time.perf_counter() - start
    return steps, seconds


def interleaved(
    steps: Mapping[str, Step], rounds: int, burst: int, device: torch.device, label: str = "", warmup: int = 2
) -> dict[str, float]:
    """Median seconds of a step of each.

    Args:
        steps: what is timed, by name.
        rounds: how often each has its turn.
        burst: steps in one turn, timed together.
        device: waited for at the end of a turn.
        label: of the bar.
        warmup: rounds that do not count.
    """
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in tqdm(range(rounds + warmup), desc=label):
        for name, step in steps.items():
            wait(device)
            start = time.perf_counter()
            for _ in range(burst):
                step()
            wait(device)
            if turn >= warmup:
                times[name].append((time.perf_counter() - start) / burst)
    return {name: statistics.median(values) for name, values in times.items()}


def add_memory(problem: Problem, found: Mapping[str, dict[str, float]], report: Callable[[str], object]) -> None:
    """Put the most bytes of one step, ``"bytes"``, beside what was measured of each contender, where they can be known.

    Args:
        problem: the problem.
        found: values by contender.
        report: takes a sentence for each whose memory is not known.
    """
    for name, values in found.items():
        try:
            values["bytes"] = peak_memory(problem, name)
        except Unfit as reason:
            report(f"the memory of {name} is not known: {reason}")


def peak_memory(problem: Problem, name: str) -> float:
    """The most bytes that torch holds during one step of a contender after its first ones: tensors of all kinds.

    Raises:
        Unfit: where the contender cannot take part, or has arrays that are not torch's.
    """
    gc.collect()  # what others have left in cycles
    cuda = problem.device.type == "cuda"
    if CONTENDERS[name].package == "numpyro":
        raise Unfit("its arrays are not torch's")
    if cuda:
        torch.cuda.synchronize()
        held = torch.cuda.memory_allocated()
        step = CONTENDERS[name].step(problem)
        step()
        torch.cuda.reset_peak_memory_stats()
        step()
        return float(torch.cuda.max_memory_allocated() - held)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step = CONTENDERS[name].step(problem)
        step()
        start = time.time_ns()
        step()
        end = time.time_ns()
        del step
        gc.collect()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    total, most = 0, 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        most = max(most, total if start <= event.start_ns() <= end else 0)
    return float(most)
