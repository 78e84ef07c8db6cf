"""Formulas become MathML while the pages are built: browsers draw it by themselves, without a network or a script."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_FORMULA = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\(?P<kind>[(\[])(?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Called by mkdocs with the HTML of each page."""
    return _FORMULA.sub(_as_mathml, content)


def _as_mathml(found: re.Match[str]) -> str:
    display = "block" if found["kind"] == "[" else "inline"
    return f"<{found['tag']}>{convert(html.unescape(found['latex']).strip(), display=display)}</{found['tag']}>"
