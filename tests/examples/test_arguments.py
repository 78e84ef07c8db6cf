import argparse

import pytest

from examples.arguments import at_least_one
from examples.paper import table1
from examples.paper.options import parse


def test_numbers_from_one():
    assert at_least_one("3") == 3
    for text in ("0", "-2"):
        with pytest.raises(argparse.ArgumentTypeError, match=f"{text} is too few: use 1 or more"):
            at_least_one(text)


@pytest.mark.parametrize("flag", ["--seeds", "--epochs", "--jobs", "--members"])
def test_a_program_asked_for_nothing_refuses(flag, capsys):
    with pytest.raises(SystemExit):
        parse({table.name: table for table in table1.TABLES}, [flag, "0"])
    assert f"argument {flag}: 0 is too few: use 1 or more" in capsys.readouterr().err
