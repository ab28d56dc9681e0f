"""Texts of users (labels, names of tasks) as LaTeX and Markdown print them, character for character."""

from __future__ import annotations

import re

_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
}
# Only where it would mean something: an underscore within a word is one, and so is "<" before a space.
_MARKDOWN = re.compile(r"[\\`*|~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|<(?=[A-Za-z/!?])|\](?=[(\[:])|&(?=[#\w]+;)|^[#>+-]")


def latex_text(text: str) -> str:
    """Text for LaTeX's text mode. Characters beyond Latin need XeLaTeX or LuaLaTeX, as they do anywhere."""
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))


def markdown_text(text: str) -> str:
    """Text for a cell of a Markdown table, or a line (CommonMark, GitHub)."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))
