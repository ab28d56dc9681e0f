"""Which items hang together: the field of their documents that says so, named or found. Pure functions of documents."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.evidence.clusters import Clusters

OWN_FIELD = "cluster"  # of a document that says itself what it belongs to
SWITCHED_OFF = "none"
# A passage or premise is longer than a label, a subject or a language; in bytes of UTF-8, as Chinese needs fewer letters.
_TEXT_BYTES = 40
_SHARING = 0.1  # share of the items whose text another one has, below which repeats are taken for chance
_ITEMS_EACH = 50  # items to a text, on average, above which it is taken for an instruction or a category


@dataclass(frozen=True)
class Clustered:
    """Clusters of some items, and the field of their documents that they are by; None where every item is by itself."""

    clusters: Clusters
    field: str | None


def clustered(documents: Sequence[Any], field: str | None, where: str) -> Clustered:
    """Items in clusters: those whose documents have the same in a field.

    Args:
        documents: of the items, mappings as a rule; others have no fields.
        field: its name; None takes the one that `cluster_field` finds, and `none` every item by itself.
        where: what the items are of, for the message.

    Raises:
        ClasError: a document lacks the field that was named.
    """
    alone = Clustered(Clusters.single(len(documents)), None)
    if field == SWITCHED_OFF:
        return alone
    named = field or cluster_field(documents)
    if named is None:
        return alone
    if lacking := sum(not (isinstance(one, Mapping) and named in one) for one in documents):
        known = sorted({str(name) for one in documents if isinstance(one, Mapping) for name in one})
        raise ClasError(
            f"{lacking} of {len(documents)} documents of {where} have no field '{named}' to be clustered by (there are "
            f"{', '.join(known) or 'none'}); name another with --cluster, or --cluster none."
        )
    return Clustered(Clusters.of([_key(one[named]) for one in documents]), named)


def cluster_field(documents: Sequence[Any]) -> str | None:
    """The field by which documents hang together, or None.

    It is `cluster`, where every document has one; else the longest text, by the median of the different ones, among the
    fields at the top of the document that

    - every document has, as a text that is not blank;
    - have at least two different texts, of 40 bytes or more in the median, so that they are no labels, languages or subjects;
    - at least a tenth of the items share with another item, so that it is more than a question that came up twice;
    - have 50 items to a text or fewer on average, so that they are no instructions that all items share, nor categories.
    """
    if not documents or not all(isinstance(one, Mapping) for one in documents):
        return None
    if all(one.get(OWN_FIELD) not in (None, "") for one in documents):
        return OWN_FIELD
    lengths: dict[str, float] = {}
    for name in documents[0]:
        texts = [one.get(name) for one in documents]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            continue
        counts = Counter(texts)
        length = statistics.median(len(str(text).encode()) for text in counts)
        sharing = sum(count for count in counts.values() if count > 1) / len(texts)
        if len(counts) > 1 and length >= _TEXT_BYTES and sharing >= _SHARING and len(texts) <= _ITEMS_EACH * len(counts):
            lengths[str(name)] = length
    return max(lengths, key=lengths.__getitem__, default=None)


def _key(value: Any) -> str:
    """A value that equals another's where the values do."""
    return json.dumps(value, sort_keys=True, default=str)
