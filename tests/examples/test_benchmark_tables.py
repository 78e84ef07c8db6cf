"""The tables of the documentation are those of the committed records, and show what was measured."""

import json

import pytest

from examples.benchmarks import render
from examples.benchmarks.contenders import PLAIN
from examples.benchmarks.records import command, save_record

STEPS = {
    PLAIN: {"seconds": 0.002, "first": 0.1, "bytes": 4e6},
    "pyro_vbd, eager": {"seconds": 0.005, "first": 0.2, "bytes": 9e6},
    "NumPyro": {"seconds": 0.003, "first": 1.0},
}


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line]


def test_the_page_has_the_tables_of_the_records():
    assert list(render.RESULTS.glob("*.json"))
    page = render.PAGE.read_text()
    assert render.filled(page, render.RESULTS) == page


def test_steps_are_multiples_of_the_plain_network():
    alone = {PLAIN: {"seconds": 0.5, "first": 0.1, "bytes": 1e9}}
    assert rows(render.step_time({"results": {"a": STEPS, "b": alone}})) == [
        ["", "a", "b", "a, memory", "b, memory"],
        ["---"] * 5,
        [PLAIN, "2.00 ms", "500.00 ms", "4.0 MB", "1000.0 MB"],
        ["**pyro_vbd, eager**", "2.50", "", "2.25", ""],
        ["NumPyro", "1.50", "", "", ""],
    ]
    assert rows(render.step_time({"results": {"a": {PLAIN: {"seconds": 0.5, "first": 0.1}}}}))[0] == ["", "a"]


def test_growth_has_a_table_for_each_axis():
    found = {"width": {"1000": {"steps": STEPS}}, "depth": {"2": {"steps": STEPS}}}
    text = render.scaling({"results": found})
    assert rows(text)[0] == ["width", "1,000"]
    assert rows(text)[3] == ["**pyro_vbd, eager**", "2.50"]
    assert rows(text)[5] == ["depth", "2"]


def test_members_are_compared_with_as_many_steps_of_one():
    text = render.members({"results": {"a": {"eager": {"one": 0.001, "1": 0.0012, "8": 0.004}}}})
    assert rows(text)[2:] == [["1 of a, eager", "1.00", "1.20", "1.20"], ["8 of a, eager", "1.00", "4.00", "0.50"]]


def test_time_to_a_loss():
    runs = [
        {"seconds": [1.0, 2.0, 3.0], "losses": [0.5, 0.2, 0.1]},
        {"seconds": [2.0, 4.0, 6.0], "losses": [0.3, 0.3, 0.2]},
    ]
    text = render.time_to_loss({"target": 0.2, "steps": 30, "runs": {"auto": runs}})
    assert rows(text)[0][1] == "seconds to a loss of 0.2000"
    assert rows(text)[2] == ['`"auto"`', "4.0 +- 2.8", "0.1500 +- 0.0707", "100.0"]


def test_a_record_goes_to_its_place(tmp_path):
    (tmp_path / "members.json").write_text(json.dumps({"command": "c", "machine": "m", "results": {}}))
    page = "a\n\n<!-- members -->\nold\n<!-- end of members -->\n\nb\n<!-- scaling --><!-- end of scaling -->\n"
    text = render.filled(page, tmp_path)
    assert text.startswith("a\n\n<!-- members -->\n\n| members |")
    assert text.endswith("\n\n`c`, m\n\n<!-- end of members -->\n\nb\n<!-- scaling --><!-- end of scaling -->\n")
    assert "old" not in text
    with pytest.raises(ValueError, match=r"no place for members.json: put <!-- members -->"):
        render.filled("a", tmp_path)


def test_a_record_has_its_command_without_paths(tmp_path, monkeypatch):
    typed = ["/somewhere/step_time.py", "--out", "/elsewhere", "--only", "a b", "--data-dir", "d", "--rounds", "3"]
    said = "python examples/benchmarks/step_time.py --only 'a b' --rounds 3"
    assert command(typed) == said
    monkeypatch.setattr("sys.argv", typed)
    save_record(tmp_path / "x.json", "m", results={"a": 1.0})
    assert json.loads((tmp_path / "x.json").read_text()) == {"command": said, "machine": "m", "results": {"a": 1.0}}
