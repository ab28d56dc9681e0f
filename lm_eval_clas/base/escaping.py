"""Texts of users (labels, names of tasks, models, corpora) as screens, LaTeX, Markdown and shells read them.

`visible` is the one gate to all of them. Whatever is printed or written goes through it: errors (`errors.py`), screens
(`screen.py`), logs (`logs.py`), files (`disk.files.write_text`), pictures (`drawing.figures.save`); and JSON that comes from
anywhere does when it is read (`disk.checked_json`), so that a width is that of what is shown.
"""

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
# What moves a cursor, hides text or turns it round: Unicode's control characters (Cc), format characters (Cf: directions, and
# what has no width), halves of characters (Cs), private ones (Co), and separators of lines (Zl, Zp). The two joiners, which
# Hindi, Persian and pictures need within words, are left out.
_UNSEEN = re.compile(
    "[\\0-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ud800-\uf8ff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0001\U000e0020-\U000e007f\U000f0000-\U0010ffff]"
)


def visible(text: str, keep: str = "") -> str:
    """A text in which no character does anything but be seen: others are written as JSON writes them, such as `\\u001b`.

    Within JSON that is the same text. A text that has been through it stays as it is.

    Args:
        text: any text.
        keep: characters that are meant, such as line breaks of a text of several lines.
    """
    return _UNSEEN.sub(lambda found: found[0] if found[0] in keep else json.dumps(found[0])[1:-1], text)


def visible_line(text: str) -> str:
    """The same on one line, with one space wherever there was space."""
    return visible(" ".join(text.split()))


def latex_text(text: str) -> str:
    """Text for LaTeX's text mode. Characters beyond Latin need XeLaTeX or LuaLaTeX, as they do anywhere."""
    return "".join(_LATEX.get(char, char) for char in visible_line(text))


def markdown_text(text: str) -> str:
    """Text for a cell of a Markdown table, or a line (CommonMark, GitHub)."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", visible_line(text))


class Ready(str):
    """Markdown that is written as it is."""


def markdown(value: object) -> str:
    """Anything that a template writes: what is not `Ready` is text, and means nothing to Markdown or HTML."""
    if isinstance(value, Ready):
        return value
    return _MARKDOWN_AND_HTML.sub(
        lambda found: f"&#{ord(found[0])};" if found[0] in "<>&" else f"\\{found[0]}", visible_line(str(value))
    )


def markdown_code(text: object) -> Ready:
    """Code within a line or a cell of a table."""
    line = visible_line(str(text))
    if line and not re.search(r"[`|<>\\]", line):
        return Ready(f"`{line}`")
    # A code span can hold neither a backtick nor, in a table, a bar, and cannot show characters by their numbers.
    return Ready(f"<code>{re.sub(r'[^ 0-9A-Za-z]', lambda found: f'&#{ord(found[0])};', line)}</code>")


def shell_word(text: object) -> Ready:
    """One word for bash, within a block of code."""
    line = visible_line(str(text))
    if not re.search("[<>]", line):
        return Ready(shlex.quote(line))
    inside = re.sub(r"[\\'<>]", lambda found: f"\\x{ord(found[0]):02x}", line)
    return Ready(f"$'{inside}'")


def python_text(text: object) -> Ready:
    """A text of Python, within a block of code."""
    quoted = json.dumps(visible_line(str(text)), ensure_ascii=False)
    return Ready(quoted.replace("<", "\\u003c").replace(">", "\\u003e"))
