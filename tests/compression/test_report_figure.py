import sys

import pytest

from tests.compression.test_report import small_report


def test_draws(tmp_path):
    pytest.importorskip("matplotlib")
    _, report = small_report()
    figure = report.draw()
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["0", "3", "5"]
    assert "times fewer weights" in left.get_title()
    assert "times" in right.texts[0].get_text()
    figure.savefig(tmp_path / "report.png")
    assert (tmp_path / "report.png").stat().st_size > 5000


def test_matplotlib_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    _, report = small_report()
    with pytest.raises(ImportError, match=r"needs matplotlib: pip install 'pyro-vbd\[examples\]'"):
        report.draw()
