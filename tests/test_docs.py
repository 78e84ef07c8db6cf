"""Every code block of the documentation runs, those of a page one after the other."""

import re
from pathlib import Path

import pytest
import torch

from pyro_vbd.priors import evidence, optimum

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "```python" in page.read_text())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_page(page, monkeypatch, tmp_path):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    for module, registry in ((optimum, "_OPTIMA"), (evidence, "_EVIDENCE")):
        monkeypatch.setattr(module, registry, dict(getattr(module, registry)))
    space: dict = {"__name__": "__main__"}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
        with torch.device("cpu"):
            exec(compile(block, str(page), "exec"), space)
