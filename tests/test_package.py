"""The package as a whole: importing it changes nothing, its public names are documented, its files have tests."""

import subprocess
import sys
from pathlib import Path

import pyro_vbd as vbd

ROOT = Path(__file__).parents[1]
#: The library as it is installed, which need not be here.
PACKAGE = Path(vbd.__file__).parent

IMPORT = """
import sys, warnings, random, numpy, torch, pyro
import torch.nn.functional as F
before = (torch.get_rng_state(), random.getstate(), dict(vars(F)), dict(vars(torch)), torch.get_default_dtype(),
          pyro.settings.get(), dict(pyro.get_param_store()), torch.get_num_threads(), list(warnings.filters))
import pyro_vbd
after = (torch.get_rng_state(), random.getstate(), dict(vars(F)), dict(vars(torch)), torch.get_default_dtype(),
         pyro.settings.get(), dict(pyro.get_param_store()), torch.get_num_threads(), list(warnings.filters))
assert torch.equal(before[0], after[0]) and before[1] == after[1]
assert all(before[2][k] is after[2][k] for k in before[2]), "torch.nn.functional was changed"
assert all(before[3][k] is after[3][k] for k in before[3]), "torch was changed"
assert before[4:] == after[4:]
assert not {"matplotlib", "sklearn", "torchvision", "torchmetrics", "arviz", "scipy"} & set(sys.modules)
"""


def test_importing_changes_nothing():
    done = subprocess.run([sys.executable, "-c", IMPORT], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_takes_less_than_twice_the_time_of_pyro():
    program = "from time import process_time as t; a = t(); import pyro; b = t(); import pyro_vbd; print((t() - a)/(b - a))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 2.0


def test_public_names_are_documented():
    for name in vbd.__all__:
        value = getattr(vbd, name)
        assert isinstance(value, str) or value.__doc__, name


def test_every_file_says_what_it_is_for_and_has_a_test():
    for path in PACKAGE.rglob("*.py"):
        assert path.read_text().startswith(('"""', 'r"""')), path
        if path.name not in ("__init__.py", "version.py"):
            mirror = ROOT / "tests" / path.relative_to(PACKAGE).parent / f"test_{path.name}"
            assert mirror.exists(), f"{path.name} has no {mirror.name}"


def test_no_prints_in_the_library():
    assert not [p for p in PACKAGE.rglob("*.py") if "print(" in p.read_text()]
