"""Docstrings read well in a terminal and in an editor, where reStructuredText is the custom; the pages are Markdown."""

import re
import textwrap
from collections.abc import Sequence
from typing import Any

import griffe

#: A block of mathematics: its own line, then everything that is indented deeper.
_MATH = re.compile(
    r"^(?P<indent> *)\.\. math::[ ]*(?P<first>[^\n]*)\n(?P<rest>(?:(?P=indent) +[^\n]*\n|[ ]*\n)*)",
    re.MULTILINE,
)

#: ``::`` at the end of a line, and the code that is indented below it.
_CODE = re.compile(r"^(?P<indent> *)(?P<text>[^\n]*?)::\n[ ]*\n(?P<code>(?:(?P=indent) +[^\n]*\n|[ ]*\n)+)", re.MULTILINE)

_REFERENCE = re.compile(r":(?:class|func|meth|mod|data|attr):`(?P<short>~?)(?P<name>[\w.]+)`")


def as_markdown(text: str) -> str:
    """Mathematics, code blocks, references and literals, in Markdown."""
    text = _MATH.sub(_math, text + "\n")
    text = _CODE.sub(_code, text)
    text = re.sub(r":math:`([^`]*)`", r"\\(\1\\)", text)
    text = _REFERENCE.sub(_reference, text)
    return re.sub(r"(?<!`)``([^`\n]+)``(?!`)", r"`\1`", text).rstrip("\n")


def _math(found: re.Match[str]) -> str:
    lines = " ".join(part.strip() for part in (found["first"] + "\n" + found["rest"]).split("\n")).strip()
    return f"{found['indent']}\\[{lines}\\]\n\n"


def _code(found: re.Match[str]) -> str:
    code = textwrap.indent(textwrap.dedent(found["code"]).strip("\n"), found["indent"])
    text = found["text"] if found["text"].endswith(" ") else f"{found['text']}:"  # as reStructuredText has it
    text = f"{found['indent']}{text.rstrip()}\n\n" if found["text"].strip() else ""
    return f"{text}{found['indent']}```python\n{code}\n{found['indent']}```\n\n"


def _reference(found: re.Match[str]) -> str:
    name = found["name"]
    shown = name.rpartition(".")[2] if found["short"] else name
    return f"[`{shown}`][{name}]" if name.startswith("pyro_vbd.") else f"`{shown}`"


def comment_above(lines: Sequence[str], lineno: int) -> str:
    """What ``#:`` comments say of the statement in a line (from 1 on): those in the lines right above it."""
    found: list[str] = []
    for line in reversed(lines[: lineno - 1]):
        if not line.strip().startswith("#:"):
            break
        found.insert(0, line.strip().removeprefix("#:").strip())
    return "\n".join(found)


class DocstringMarkup(griffe.Extension):
    """Translates each docstring as it is read; an attribute's is the comment above it."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Of a module, a class, a function or an attribute."""
        if obj.docstring is None and obj.is_attribute and obj.lineno is not None:
            comment = comment_above(obj.lines_collection[obj.filepath], obj.lineno)
            obj.docstring = griffe.Docstring(comment, parent=obj) if comment else None
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
