"""The first pattern that matches counts."""

import pytest

from pyro_vbd.site_patterns import first_match, idle, refuse_idle

PATTERNS = {"0.weight": 1, "0.*": 2, "?.bias": 3}


@pytest.mark.parametrize(
    ("site", "expected"), [("0.weight", 1), ("0.bias", 2), ("1.bias", 3), ("10.bias", 4), ("O.weight", 4)]
)
def test_the_first_pattern_counts(site, expected):
    assert first_match(PATTERNS, site, 4) == expected


def test_patterns_that_match_nothing_are_named():
    assert idle([*PATTERNS, "bias"], ["0.weight", "10.bias"]) == ["?.bias", "bias"]
    assert idle([], ["0.weight"]) == []


def test_a_setting_that_matches_nothing_is_refused_each_time():
    for _ in range(2):
        with pytest.raises(ValueError, match=r"weights has the patterns \['2\.\*'\], .* of the sites \['0\.weight'\]"):
            refuse_idle("weights", {"0.*": 1, "2.*": 2}, ["0.weight"])
    refuse_idle("weights", ["0.*"], ["1.weight", "0.weight"])
