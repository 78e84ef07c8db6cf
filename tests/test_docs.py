"""Every code block of the documentation runs, those of a page one after the other."""

import dataclasses
import importlib.util
import inspect
import re
from pathlib import Path

import pytest
import torch

import pyro_vbd as vbd
from pyro_vbd import compression
from pyro_vbd.compression.latency import Latency
from pyro_vbd.compression.report import LayerReport
from pyro_vbd.compression.sweep import SweepPoint
from pyro_vbd.predict import ClassPrediction, ValuePrediction

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "```python" in page.read_text())
#: What the functions of the library give, as dataclasses.
RESULTS = [
    vbd.ELBOTerms, vbd.Fit, ClassPrediction, ValuePrediction, compression.Sweep, SweepPoint, compression.Cut,
    compression.Report, LayerReport, Latency,
]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_page(page, monkeypatch, tmp_path, traced, registries):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    space: dict = {"__name__": "__main__"}
    try:
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
            with torch.device("cpu"):
                exec(compile(block, str(page), "exec"), space)
    finally:
        torch.set_flush_denormal(False)  # a page turns it on


@pytest.mark.parametrize("module", [vbd, vbd.priors, vbd.noise, compression], ids=lambda module: module.__name__)
def test_each_public_name_has_its_place_in_the_reference(module):
    text = "".join(page.read_text() for page in (DOCS / "api").glob("*.md"))
    named = set(re.findall(r"[\w.]+", text))
    names = {name for name in module.__all__ if not name.startswith("__") and name not in {"noise", "priors"}}
    assert {name for name in names if name not in named and not any(n.endswith(f".{name}") for n in named)} == set()


@pytest.fixture
def markup():
    pytest.importorskip("griffe")
    spec = importlib.util.spec_from_file_location("docstring_markup", DOCS / "extensions" / "docstring_markup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("kind", RESULTS, ids=lambda kind: kind.__name__)
def test_each_field_of_a_result_is_described_in_the_reference(markup, kind):
    lines, _ = inspect.getsourcelines(kind)
    names = [field.name for field in dataclasses.fields(kind)]
    places = {name: next(i for i, line in enumerate(lines, 1) if line.startswith(f"    {name}: ")) for name in names}
    assert [name for name, place in places.items() if not markup.comment_above(lines, place)] == []


def test_a_comment_of_several_lines_describes_the_field_below_it(markup):
    lines = ["class A:", "    #: The first,", "    #: in two lines.", "    first: int", "    second: int"]
    assert markup.comment_above(lines, 4) == "The first,\nin two lines."
    assert markup.comment_above(lines, 5) == ""


def test_docstrings_become_markdown(markup):
    docstring = """Of :math:`a_b` and ``c``.

    .. math:: x = 1, \\\\
        y = 2

    See :func:`~pyro_vbd.fit` and :class:`torch.Tensor`. ::

        code(1)
            .deeper
    """
    assert markup.as_markdown(docstring).split("\n") == [
        r"Of \(a_b\) and `c`.",
        "",
        r"    \[x = 1, \\ y = 2\]",
        "",
        "    See [`fit`][pyro_vbd.fit] and `torch.Tensor`.",
        "",
        "    ```python",
        "    code(1)",
        "        .deeper",
        "    ```",
    ]
