"""Programs in processes of their own that begin with their imports done: forks of one that has imported what they use.

A Python that is started anew takes four to eight seconds for torch, Pyro, scikit-learn and ArviZ; a fork takes none. It is
a fork of a server that has done nothing else, not of the one that runs the tests: nothing of theirs is in it.
"""

import multiprocessing
import os
import runpy
import sys
from pathlib import Path

import torch
import torch._inductor

EXAMPLES = Path(__file__).parents[1] / "examples"

CONTEXT = multiprocessing.get_context("forkserver")  # it has no CUDA context either, which a fork would break
CONTEXT.set_forkserver_preload(  # what is not installed is left out; a first optimizer's step imports Dynamo
    ["pyro_vbd", "torch._dynamo", "matplotlib.pyplot", "scipy.stats", "sklearn.datasets", "torchmetrics", "torchvision",
     "arviz", "pytest"]
)  # fmt: skip


class Program:
    """A program at work, as ``python program *arguments`` would run it in a folder, on one thread.

    Compiled steps run as traced graphs: what Inductor does to them takes half a minute, and has tests of its own.

    Args:
        program: its file.
        arguments: of its command line.
        folder: where it runs.
        prints: folder for what it prints, which is made; the files ``stdout`` and ``stderr``.
        environment: variables beside those of the tests.
    """

    def __init__(self, program: Path, *arguments: str, folder: Path, prints: Path, **environment: str) -> None:
        prints.mkdir(parents=True, exist_ok=True)
        self._files = prints / "stdout", prints / "stderr"
        environment = {**os.environ, **environment}
        self.process = CONTEXT.Process(target=_run, args=(program, arguments, folder, self._files, environment))
        self.process.start()

    @property
    def stdout(self) -> str:
        return self._files[0].read_text() if self._files[0].exists() else ""

    @property
    def stderr(self) -> str:
        return self._files[1].read_text() if self._files[1].exists() else ""

    def wait(self, seconds: float = 300) -> int:
        """Its exit status, of a signal as a negative number; a program that takes longer is killed."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            raise TimeoutError(f"{self.process} took more than {seconds} seconds")
        return self.process.exitcode


def _run(program: Path, arguments: tuple[str, ...], folder: Path, files: tuple[Path, Path], environment: dict) -> None:
    for number, file in enumerate(files, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(environment)
    if "matplotlib" in sys.modules and "MPLBACKEND" in environment:  # which it looks at when it is imported
        sys.modules["matplotlib"].use(environment["MPLBACKEND"])
    os.chdir(folder)
    sys.argv = [str(program), *arguments]
    sys.path[:] = [str(program.parent), *(entry for entry in sys.path if entry != str(EXAMPLES))]
    torch.set_num_threads(1)
    torch._inductor.compile = lambda graph, *_, **__: graph
    runpy.run_path(str(program), run_name="__main__")
