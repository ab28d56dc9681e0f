"""Which field says that items hang together: by a rule, which labels, instructions and accidents do not fool."""

from __future__ import annotations

from typing import Any

import pytest

from lm_eval_clas import ClasError
from lm_eval_clas.evidence.cluster_fields import cluster_field, clustered

PASSAGE = "The river that runs under the old stone bridge carries seven white boats, number"


def documents(count: int = 60, each: int = 3, **more: Any) -> list[dict[str, Any]]:
    """So many documents to a passage; what is given besides is a value, or a function of the number."""
    made = [{"id": f"q{i}", "question": f"What is asked about in question {i} of all?", "label": i % 3} for i in range(count)]
    for i, one in enumerate(made):
        one |= {"passage": f"{PASSAGE} {i // each}"} if each > 1 else {}
        one |= {name: value(i) if callable(value) else value for name, value in more.items()}
    return made


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (documents(), "passage"),
        (documents(cluster=lambda i: f"c{i // 6}"), "cluster"),
        (documents(cluster=lambda i: i // 6), "cluster"),
        (documents(cluster=lambda i: "" if i else "c"), "passage"),  # not every item has one
        (documents(each=1), None),
        (documents(each=1, language="Standard Mandarin Chinese"), None),
        (documents(each=1, subject=lambda i: ("high_school_mathematics", "professional_psychology")[i % 2]), None),
        (documents(each=1, category=lambda i: ("Health", "Law", "Conspiracies")[i % 3]), None),
        (documents(each=1, choices=lambda i: [PASSAGE, PASSAGE]), None),
        (documents(each=1, instruction="Answer the following question in one word, and in the language it is asked in."), None),
        (documents(300, each=1, instruction=lambda i: f"{PASSAGE} in the manner of style {i % 4}."), None),
        (documents(each=1, question=lambda i: f"{PASSAGE} {max(i, 1)}"), None),  # one question came up twice
        (documents(each=1, source=lambda i: None if i == 5 else f"{PASSAGE} {i // 3}"), None),
        (documents(each=1, premise=lambda i: f"那位面包师中午就关了店门因为烤炉坏了他只好回家第{i // 3}"), "premise"),
        (documents(article=lambda i: f"{PASSAGE * 4} {i // 12}"), "article"),  # the longest
        ([], None),
        (["no", "mapping"], None),
    ],
)
def test_the_field_is_a_text_that_several_items_share(made: list[Any], expected: str | None) -> None:
    assert cluster_field(made) == expected
    found = clustered(made, None, "some_task")
    assert found.field == expected
    assert found.clusters.alone == (expected is None)


def test_a_field_can_be_named_or_switched_off() -> None:
    made = documents(12, each=3, group=lambda i: {"number": i // 4})
    assert clustered(made, None, "t").clusters.count == 4
    named = clustered(made, "group", "t")
    assert (named.clusters.numbers.tolist(), named.field) == ([0] * 4 + [1] * 4 + [2] * 4, "group")
    off = clustered(made, "none", "t")
    assert (off.clusters.alone, off.field) == (True, None)
    with pytest.raises(ClasError) as raised:
        clustered([*made, {"other": 1}], "group", "xnli_hi")
    assert str(raised.value) == (
        "1 of 13 documents of xnli_hi have no field 'group' to be clustered by (there are group, id, label, other, passage, "
        "question); name another with --cluster, or --cluster none."
    )
    with pytest.raises(ClasError, match="there are none"):
        clustered([None], "group", "xnli_hi")
