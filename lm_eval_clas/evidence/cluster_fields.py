"""Which items hang together: the field of their documents that says so, named or found. Pure functions of documents."""

from __future__ import annotations

import json
import re
import statistics
import unicodedata
from array import array
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, islice
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.evidence.clusters import Clusters

OWN_FIELD = "cluster"  # of a document that says itself what it belongs to
SWITCHED_OFF = "none"
_LETTERS = 40  # of a passage or premise, at least: a label, a subject or a language has fewer
_SHARING = 0.1  # share of the items whose text another one has, below which repeats are taken for chance
_ITEMS_EACH = 50  # items to a text, on average, above which it is taken for an instruction or a category
_MEASURED = 500  # different texts of which letters are counted
_FEW = 20  # different texts, below which they may be instructions or categories that take turns
_RUNS_EACH = 2  # runs of items to a text, on average, up to which so few texts do not take turns
# Han, Kana and Hangul, of which a word needs about a third of the letters that it has in an alphabet.
_DENSE = re.compile("[\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]")
_DENSITY = 3
_LISTED = re.compile(r"\s*(\[.*\]|\{.*\})\s*", re.DOTALL)  # a list or mapping, written as a text


@dataclass(frozen=True)
class Clustered:
    """Items in clusters.

    Attributes:
        keys: of each item; those with the same key hang together. Keys of the same field mean the same in other tasks.
        field: of the documents, which the keys are of; None where every item is by itself.
    """

    keys: tuple[Hashable, ...]
    field: str | None

    @cached_property
    def clusters(self) -> Clusters:
        """Of these items."""
        return Clusters.of(self.keys)


@dataclass(frozen=True)
class _Candidate:
    """A field that holds a text in every document of a task.

    Attributes:
        keys: hashes of the items' texts.
        sharing: share of items whose text another item has.
        letters: of the different texts, in the median.
        shared: whether it is what items hang together by, for all that this task tells.
    """

    keys: array[int]
    sharing: float
    letters: float
    shared: bool


def clustered(documents: Sequence[Any], field: str | None, where: str) -> Clustered:
    """Items of one task in clusters, as `clustered_alike` makes them."""
    return clustered_alike([(where, documents)], field)[0]


def clustered_alike(tasks: Iterable[tuple[str, Sequence[Any]]], field: str | None) -> list[Clustered]:
    """Items in clusters: those whose documents have the same in a field, which is the same field in all tasks that have it.

    Args:
        tasks: such as the languages of one family: what the items are of, for the message, and their documents, mappings as a
            rule; others have no fields. They are gone through once.
        field: its name; None finds it, and `none` takes every item by itself.

    None finds `cluster`, where every document of a task has one. For the other tasks it is a text at the top of the document.
    A task speaks for a field that

    - every document has, as a text that is not blank, and no list or mapping written out as one;
    - has at least two different texts, of 40 letters or more in the median (those of Chinese, Japanese and Korean scripts
      count three times), so that they are no labels, languages or subjects;
    - at least a tenth of the items share with another item, so that it is more than a question that came up twice;
    - has 50 items to a text or fewer on average, and, if there are fewer than 20 texts, whose items follow one another (in two
      runs a text or fewer on average), so that they are no instructions nor categories that take turns. Few texts are no
      reason by themselves: the first items of a task are of few passages.

    Fields for which at least half of the tasks that have them as texts speak are ranked by how many speak for them; then by
    the share of items that share their text, in tenths; then by letters. The first is taken by all tasks that have it, and the
    tasks that lack it go on among themselves.

    Raises:
        ClasError: a document lacks the field that was named.
    """
    if field is not None:
        return [_by(documents, field, where) for where, documents in tasks]
    found: list[Clustered] = []
    open_tasks: dict[int, dict[str, _Candidate]] = {}
    for number, (where, documents) in enumerate(tasks):
        own = bool(documents) and all(isinstance(one, Mapping) and one.get(OWN_FIELD) not in (None, "") for one in documents)
        found.append(_by(documents, OWN_FIELD if own else SWITCHED_OFF, where))
        if not own:
            open_tasks[number] = _texts(documents)
    while (best := _best(list(open_tasks.values()))) is not None:
        for number in [number for number, texts in open_tasks.items() if best in texts]:
            keys = tuple(open_tasks.pop(number)[best].keys)
            if len(set(keys)) < len(keys):
                found[number] = Clustered(keys, best)
    return found


def clusters_over_tasks(parts: Sequence[Clustered]) -> Clusters:
    """Clusters of the items of several tasks, one after the other: together are those with the same key in the same field."""
    return Clusters.of(
        [(part if one.field is None else None, one.field, key) for part, one in enumerate(parts) for key in one.keys]
    )


def no_field(lacking: int, documents: int, where: str, named: str, known: Iterable[Any]) -> ClasError:
    """What is said where documents cannot be clustered by a field; `known` are those that there are."""
    fields = ", ".join(sorted({str(name) for name in known}))
    return ClasError(
        f"{lacking} of {documents} documents of {where} have no field '{named}' to be clustered by (there are "
        f"{fields or 'none'}); name another with --cluster, or --cluster none."
    )


def _by(documents: Sequence[Any], named: str, where: str) -> Clustered:
    if named == SWITCHED_OFF:
        return Clustered(tuple(range(len(documents))), None)
    if lacking := sum(not (isinstance(one, Mapping) and named in one) for one in documents):
        known = {name for one in documents if isinstance(one, Mapping) for name in one}
        raise no_field(lacking, len(documents), where, named, known)
    return Clustered(tuple(_key(one[named]) for one in documents), named)


def _texts(documents: Sequence[Any]) -> dict[str, _Candidate]:
    """The fields that hold a text in every document."""
    if not documents or not all(isinstance(one, Mapping) for one in documents):
        return {}
    found = {}
    for name in documents[0]:
        texts = [one.get(name) for one in documents]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            continue
        counts = Counter(texts)
        letters = statistics.median(map(_letters, islice(counts, _MEASURED)))
        sharing = sum(count for count in counts.values() if count > 1) / len(texts)
        listed = 2 * sum(_LISTED.fullmatch(text) is not None for text in counts) > len(counts)
        in_turn = len(counts) < _FEW and sum(1 for _ in groupby(texts)) > _RUNS_EACH * len(counts)
        shared = (
            len(counts) > 1
            and letters >= _LETTERS
            and sharing >= _SHARING
            and len(texts) <= _ITEMS_EACH * len(counts)
            and not listed
            and not in_turn
        )
        found[str(name)] = _Candidate(array("q", map(_key, texts)), sharing, letters, shared)
    return found


def _best(tasks: Sequence[Mapping[str, _Candidate]]) -> str | None:
    """The first field of those that tasks speak for, or None."""
    ranks: dict[str, tuple[int, float, float]] = {}
    for name in dict.fromkeys(name for texts in tasks for name in texts):
        having = [texts[name] for texts in tasks if name in texts]
        speaking = [one for one in having if one.shared]
        if speaking and 2 * len(speaking) >= len(having):
            sharing, letters = (statistics.fmean(getattr(one, what) for one in speaking) for what in ("sharing", "letters"))
            ranks[name] = (len(speaking), round(sharing, 1), letters)
    return max(ranks, key=ranks.__getitem__, default=None)


def _letters(text: str) -> int:
    """How long a text is, whatever its script: signs that stand on a letter, such as vowels of Hindi, are no letters."""
    if text.isascii():
        return len(text)
    marks = sum(unicodedata.category(sign).startswith("M") for sign in text)
    return len(text) - marks + (_DENSITY - 1) * len(_DENSE.findall(text))


def _key(value: Any) -> int:
    """The same for equal values, within one process: the texts of many tasks are not held at once."""
    return hash(json.dumps(value, sort_keys=True, default=str))
