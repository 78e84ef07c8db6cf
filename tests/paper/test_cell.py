from dataclasses import replace

from tests.paper.toy import cell, table


def test_one_seed_of_every_row_comes_first():
    cells = table().cells([0, 1])
    assert [c.seed for c in cells] == [0] * 4 + [1] * 4


def test_no_two_cells_have_a_folder_in_common():
    others = [cell("b"), cell(size="2"), cell(seed=1), cell(selection="validation"), replace(cell(), table="other")]
    assert len({one.slug for one in (cell(), *others)}) == 6
