"""The list of mutations is up to date; with ``-m slow`` each is made, and caught."""

import pytest

from tests.mutations import MUTATIONS, ROOT, survives
from tests.test_package import PACKAGE


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_each_can_be_made(mutation):
    assert mutation.old in (PACKAGE.parent / mutation.path).read_text()
    assert mutation.old != mutation.new
    assert all((ROOT / "tests" / word).exists() for word in mutation.tests.split() if word.endswith(".py"))


@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.what)
def test_each_is_caught(mutation):
    assert not survives(mutation)
