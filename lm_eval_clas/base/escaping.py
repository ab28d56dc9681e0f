"""Texts of users (labels, names of tasks, models, corpora) as LaTeX, Markdown and shells read them, character for character."""

from __future__ import annotations

import json
import re
import shlex

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
_MARKDOWN_AND_HTML = re.compile(f"[<>]|{_MARKDOWN.pattern}")


def latex_text(text: str) -> str:
    """Text for LaTeX's text mode. Characters beyond Latin need XeLaTeX or LuaLaTeX, as they do anywhere."""
    return "".join(_LATEX.get(char, char) for char in " ".join(text.split()))


def markdown_text(text: str) -> str:
    """Text for a cell of a Markdown table, or a line (CommonMark, GitHub)."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", " ".join(text.split()))


class Ready(str):
    """Markdown that is written as it is."""


def markdown(value: object) -> str:
    """Anything that a template writes: what is not `Ready` is text, and means nothing to Markdown or HTML."""
    if isinstance(value, Ready):
        return value
    return _MARKDOWN_AND_HTML.sub(
        lambda found: f"&#{ord(found[0])};" if found[0] in "<>&" else f"\\{found[0]}", _one_line(str(value))
    )


def markdown_code(text: object) -> Ready:
    """Code within a line or a cell of a table."""
    line = _one_line(str(text))
    if line and not re.search(r"[`|<>\\]", line):
        return Ready(f"`{line}`")
    # A code span can hold neither a backtick nor, in a table, a bar, and cannot show characters by their numbers.
    return Ready(f"<code>{re.sub(r'[^ 0-9A-Za-z]', lambda found: f'&#{ord(found[0])};', line)}</code>")


def shell_word(text: object) -> Ready:
    """One word for bash, within a block of code."""
    line = _one_line(str(text))
    if not re.search("[<>]", line):
        return Ready(shlex.quote(line))
    inside = re.sub(r"[\\'<>]", lambda found: f"\\x{ord(found[0]):02x}", line)
    return Ready(f"$'{inside}'")


def python_text(text: object) -> Ready:
    """A text of Python, within a block of code."""
    quoted = json.dumps(_one_line(str(text)), ensure_ascii=False)
    return Ready(quoted.replace("<", "\\u003c").replace(">", "\\u003e"))


def _one_line(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())
