import dataclasses
import json
from importlib import import_module
from pathlib import Path

import pytest

from examples.paper import rendering
from examples.paper.cell import Column
from examples.paper.rendering import render, spread, table_text
from examples.paper.results import Results
from tests.paper.toy import cell, table

PAPER = Path(rendering.__file__).parent


def record(error, **more):
    return {"metrics": {"error": error, **more}}


def test_spread():
    assert spread([], Column("")) == ""
    assert spread([1.234], Column("")) == "1.23 (1)"
    assert spread([1.0, 2.0, 3.0], Column("")) == "2.00 ± 1.00 (3)"
    assert spread([10, 20], Column("", 0)) == "15 ± 7 (2)"
    assert spread([[1, 10], [2, 20]], Column("", 1)) == "1.5-15.0 (2)"
    assert spread([[1], [1], [7]], Column("", 1)) == "3.0 (3)"


def test_sizes_across_with_the_papers_figures():
    records = {cell("a", "1", 0): record(1.0), cell("a", "1", 1): record(2.0)}
    text = table_text(table(paper={"1": {"error": 1.6}}), records)
    assert "| A | 1.50 ± 0.71 (2) *1.60* |  |" in text
    assert "| B | *1.60* |  |" in text
    assert text.splitlines()[0] == "## Table toy. A toy"
    assert "A note." in text
    assert "Sources." not in text


def test_sources():
    made = table()
    made.methods["a"] = dataclasses.replace(made.methods["a"], source="Somebody 2012")
    assert "Sources. A: Somebody 2012." in table_text(made, {})


def test_several_columns_make_a_block_for_each_size():
    columns = {"error": Column("error %"), "layers": Column("neurons", 0)}
    paper = {"2": {"layers": [7, 8], "error": "1.67 or 1.76"}}
    text = table_text(table(columns=columns, paper=paper), {cell("b", "2"): record(3.0, layers=[10, 20])})
    assert "### 1" in text
    assert "| B | 3.00 (1) *1.67 or 1.76* | 10-20 (1) *7-8* |" in text


def test_picked_rows_stand_under_the_others():
    picked = {"metrics": {"error": 5.0, "picked": {"error": 4.0}}}
    text = table_text(table(), {cell("a", "1", selection="validation"): picked})
    assert "| A |  |  |\n| A, picked | 4.00 (1) |  |" in text
    assert "B, picked" not in text


def test_a_table_that_has_not_been_run_says_so():
    assert "Nothing of this table has been run yet." in table_text(table(), {})
    assert "Nothing of this table" not in table_text(table(), {cell(): record(1.0)})


def test_all_tables_are_rendered(tmp_path):
    render(tmp_path / "results", tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    for number in ("1", "1-strong", "2", "3", "4", "4-strong", "5", "5-strong"):
        assert f"## Table {number}. " in text
    assert "*98.9-97.2-62*" in text
    assert "*179-160-60*" in text
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["README.md"]


@pytest.mark.parametrize("program", rendering.PROGRAMS)
def test_every_row_has_recipes_with_epochs_for_its_sizes(program):
    for made in import_module(f"examples.paper.{program}").TABLES:
        for method in made.methods.values():
            assert set(method.recipes) == set(made.sizes)
            assert all(recipe["epochs"] > 0 for recipe in method.recipes.values())
            assert set(method.paper) <= set(made.sizes)
            assert all(set(figures) <= set(made.columns) for figures in method.paper.values())


def test_the_published_tables_are_those_of_the_published_records(tmp_path):
    render(PAPER / "results", tmp_path / "README.md")
    assert (PAPER / "README.md").read_text() == (tmp_path / "README.md").read_text(), "run examples/paper/render.py"


@pytest.mark.parametrize("program", rendering.PROGRAMS)
def test_published_records_are_of_the_recipes_that_stand_there(program):
    for made in import_module(f"examples.paper.{program}").TABLES:
        for which, found in Results(PAPER / "results", made.name).records().items():
            assert found["configuration"] == json.loads(json.dumps(made.methods[which.method].recipes[which.size]))
