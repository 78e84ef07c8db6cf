import pytest

from examples.paper.options import wanted
from examples.paper.runner import main
from tests.paper.toy import options, table


@pytest.mark.parametrize("change", [("--set", "lr=0.01"), ("--epochs", "2")])
def test_published_results_are_of_the_tables_settings(change, capsys):
    with pytest.raises(SystemExit):
        main("table4", ["--only", "vbd", *change])
    assert "pass a --results of their own" in capsys.readouterr().err


def test_names_are_patterns_and_wrong_ones_are_refused(tmp_path):
    toy = table()
    assert {c.method for c in wanted(toy, options(toy, tmp_path, "--only", "[b-z]*"))} == {"b"}
    assert {c.size for c in wanted(toy, options(toy, tmp_path, "--sizes", "2"))} == {"2"}
    assert [c.seed for c in wanted(toy, options(toy, tmp_path, "--first-seed", "3", "--sizes", "2"))] == [3, 3]
    assert {c.selection for c in wanted(toy, options(toy, tmp_path, "--selection", "validation"))} == {"validation"}
    with pytest.raises(SystemExit, match="'c' is no method of table toy: it has a, b"):
        wanted(toy, options(toy, tmp_path, "--only", "c"))
