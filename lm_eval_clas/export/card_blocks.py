"""A card that a person may edit: what this program writes stands in a marked block, and the rest of the file is theirs.

The block begins with a comment that holds, as JSON, the hash of what follows (so that a block that was edited can be told), the
metadata that were written in front of the file (so that those can be brought up to date, and a person's own left alone), and
the hashes of files that belong to the card.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from lm_eval_clas.base.errors import ClasError

_BEGIN = "<!-- lm-eval-clas begin: what is between these comments is written anew; everything else in this file is kept."
_END = "<!-- lm-eval-clas end -->"
_BLOCK = re.compile(
    rf"^{re.escape(_BEGIN)} (?P<marker>{{.*}}) -->\r?\n"
    rf"(?P<body>(?:(?!{re.escape(_BEGIN)}).*\n)*?)"
    rf"{re.escape(_END)}[ \t\r]*$\n?",
    re.MULTILINE,
)
_FRONT = re.compile(r"\A\ufeff?---[ \t]*\r?\n(?P<front>(?:.*\n)*?)---[ \t]*\r?(?:\n|\Z)")
_KEY = re.compile(r"""(?P<key>[^\s#'"-][^:]*?|'[^']*'|"[^"]*")[ \t]*:(?:\s|$)""")


@dataclass(frozen=True)
class MarkedBlock:
    """What this program wrote into a card.

    Attributes:
        body: between the comments.
        sha256: what the body's hash was when it was written.
        front: the metadata that were written in front.
        files: the hashes of files that belong to the card, by name.
    """

    body: str
    sha256: str
    front: dict[str, Any]
    files: dict[str, str]

    @property
    def intact(self) -> bool:
        """Whether nobody has changed it since."""
        return _hash(self.body) == self.sha256


def find_block(text: str) -> MarkedBlock | None:
    """The block of a card; None where it has none."""
    found = _BLOCK.search(text)
    if found is None:
        return None
    try:
        marker = json.loads(found["marker"])
        block = MarkedBlock(found["body"].replace("\r\n", "\n"), marker["sha256"], dict(marker["front"]), dict(marker["files"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return block


def card(front: Mapping[str, Any], body: str, files: Mapping[str, str], before: str = "", where: str = "README.md") -> str:
    """A card: metadata in front, and the block.

    Args:
        front: metadata; a text or a list of texts by key.
        body: Markdown that ends in a line break.
        files: hashes of files that belong to the card, by name.
        before: the card that is there. All of it is kept but an older block: a person's own metadata and items of lists stay,
            and what is missing is added. Where it has no block, the new one comes last.
        where: how the card that is there is called in errors.

    Raises:
        ClasError: the metadata of the card that is there cannot be read or added to.
    """
    marker = json.dumps({"sha256": _hash(body), "front": dict(front), "files": dict(files)})
    block = f"{_BEGIN} {marker.replace('<', chr(92) + 'u003c').replace('>', chr(92) + 'u003e')} -->\n{body}{_END}\n"
    found = _FRONT.match(before)
    rest = before[found.end() :] if found else before.removeprefix("\ufeff")
    older = find_block(rest)
    head = _updated(found["front"] if found else "", front, older.front if older else {}, where)
    if older is not None:
        rest = _BLOCK.sub(lambda _: block, rest, count=1)
    elif rest.strip():
        rest += ("" if rest.endswith("\n") else "\n") + f"\n{block}"
    else:
        rest = block
    if not rest.startswith(("\n", "\r")):
        rest = f"\n{rest}"
    return f"---\n{head}---\n{rest}" if head.strip() else rest.lstrip("\n")


def _hash(body: str) -> str:
    return hashlib.sha256(body.replace("\r\n", "\n").encode()).hexdigest()


def _updated(front: str, ours: Mapping[str, Any], wrote: Mapping[str, Any], where: str) -> str:
    """The metadata in front of a card, with ours in it. Lines of other keys stay as they are, comments too.

    Scalars are read as texts, so that the language `no` is one, and no value changes its type.
    """
    try:
        theirs = yaml.load(front, Loader=yaml.BaseLoader) or {}
        wanted = _united(theirs, ours, wrote)
        changed = {key: wanted.get(key) for key in {**theirs, **wanted} if theirs.get(key) != wanted.get(key)}
        edited = _edited(front, changed)
        if yaml.load(edited, Loader=yaml.BaseLoader) or wanted == {}:
            return edited
    except (yaml.YAMLError, AttributeError, TypeError, ValueError, RecursionError):
        pass
    raise ClasError(f"The metadata in front of '{where}' cannot be read as YAML with one key to a line; correct them first.")


def _united(theirs: Mapping[str, Any], ours: Mapping[str, Any], wrote: Mapping[str, Any]) -> dict[str, Any]:
    united = dict(theirs)
    for key in {**wrote, **ours}:
        there, last, new = theirs.get(key) or None, wrote.get(key), ours.get(key)
        if isinstance(new or last, list):
            items = [] if there == last else there if isinstance(there, list) else [there] if there else []
            united[key] = [one for one in items if one not in (last or []) or one in (new or [])]
            united[key] += [one for one in new or [] if one not in items]
        elif there is None or there == last:  # missing, or what we wrote
            united[key] = new
        if not united[key]:
            del united[key]
    return united


def _edited(front: str, changed: Mapping[str, Any]) -> str:
    """YAML in which the values of some keys are replaced, removed (None) or added at the end."""
    left = dict(changed)
    parts: list[str] = []
    chunks: list[list[str]] = [[]]
    for line in front.splitlines(keepends=True):
        if _KEY.match(line):
            chunks.append([])
        chunks[-1].append(line)
    for lines in chunks:
        found = _KEY.match(lines[0]) if lines else None
        key = found["key"].strip("'\"") if found else None
        if key not in left:
            parts += lines
            continue
        end = len(lines)
        while not lines[end - 1].strip() or lines[end - 1].startswith("#"):  # belongs to the next key
            end -= 1
        parts += [_replaced(lines[:end], key, left.pop(key)), *lines[end:]]
    return "".join(parts) + "".join(_dumped(key, value) for key, value in left.items() if value is not None)


def _replaced(lines: list[str], key: str, value: Any) -> str:
    """The lines of one key with another value; where items were only added to a list of lines, the others stay as they are."""
    text = "".join(lines)
    if value is None:
        return ""
    old = next(iter(yaml.load(text, Loader=yaml.BaseLoader).values()))
    item = re.match(r"\s*- ", lines[-1])
    if item and isinstance(old, list) and value[: len(old)] == old:
        added = yaml.safe_dump(value[len(old) :], allow_unicode=True).splitlines()
        return text + "".join(f"{item[0][:-2]}{line}\n" for line in added)
    return _dumped(key, value)


def _dumped(key: str, value: Any) -> str:
    return str(yaml.safe_dump({key: value}, allow_unicode=True, width=1_000_000))
