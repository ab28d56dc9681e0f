"""Which field says that items hang together: by a rule, which labels, instructions and accidents do not fool."""

from __future__ import annotations

from typing import Any

import pytest

from lm_eval_clas import ClasError
from lm_eval_clas.evidence.cluster_fields import clustered, clustered_alike, clusters_over_tasks

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
        (documents(rationale=lambda i: f"{PASSAGE * 4} {max(i, 7)}"), "passage"),  # longer, and shared by 13 %
        (documents(100, each=1, instruction=lambda i: f"{PASSAGE} in the manner of style {i % 3}."), None),
        (documents(each=12), "passage"),  # the first 60 questions are of five passages
        (documents(each=1, category=lambda i: f"विश्वविद्यालय भौतिकी {chr(0x905 + i % 25)}"), None),
        (documents(each=1, category=lambda i: f"ฟิสิกส์ระดับมหาวิทยาลัย {chr(0xE01 + i % 25)}"), None),
        (documents(each=1, premise=lambda i: f"그 제빵사는 오븐이 고장 나서 정오에 가게 {i // 3}"), "premise"),
        (documents(each=1, knowledge=lambda i: str(["none", "cultural", "regional", "dialect", "none", i % 25])), None),
        (documents(each=1, knowledge=lambda i: str({"needed": "cultural", "by": "annotators", "count": i % 25})), None),
        (documents(each=2, passage=lambda i: f"[header] {PASSAGE} {i // 3}"), "passage"),
        ([], None),
        (["no", "mapping"], None),
    ],
)
def test_the_field_is_a_text_that_several_items_share(made: list[Any], expected: str | None) -> None:
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


def test_languages_take_the_same_field() -> None:
    """What is longer in one language is shorter in another, and what one of three takes for a text is a label to the others."""
    hi = documents(context=lambda i: f"{PASSAGE * 3} {i // 6}", category=lambda i: f"{PASSAGE * 9} {i // 6}")
    sw = documents(context=lambda i: f"{PASSAGE[:50]} {i // 6}", category=lambda i: f"Law {i // 6}")
    de = documents(context=lambda i: f"{PASSAGE[:50]} {i // 6}", category=lambda i: f"Law {i // 6}")
    assert [clustered(one, None, "t").field for one in (hi, sw, de)] == ["category", "passage", "passage"]
    found = clustered_alike([("t_hi", hi), ("t_sw", sw), ("t_de", de)], None)
    assert {one.field for one in found} == {"context"}
    assert {one.clusters.count for one in found} == {10}


def test_most_languages_decide() -> None:
    """A label that is long in one of three makes no clusters, nor does a text of two go before one of all."""
    labels = [documents(each=1, category=lambda i, long=long: f"{long} {i // 6}") for long in (PASSAGE, "Law", "Law")]
    assert clustered(labels[0], None, "t").field == "category"
    assert [one.field for one in clustered_alike([("t", one) for one in labels], None)] == [None] * 3
    notes = [documents(note=lambda i, long=long: f"{long} {i // 6}") for long in (PASSAGE * 2, PASSAGE * 2, "Law")]
    assert [clustered(one, None, "t").field for one in notes] == ["note", "note", "passage"]
    assert [one.field for one in clustered_alike([("t", one) for one in notes], None)] == ["passage"] * 3


def test_a_task_without_the_field_of_the_others_has_one_of_its_own() -> None:
    other = [{"premise": f"{PASSAGE} {i // 4}"} for i in range(40)]
    named, own, single = documents(), documents(cluster=lambda i: i // 6), documents(each=1)
    found = clustered_alike([("a", named), ("b", other), ("c", own), ("d", single)], None)
    assert [one.field for one in found] == ["passage", "premise", "cluster", None]
    assert [one.clusters.count for one in found] == [20, 10, 10, 60]


def test_a_task_is_by_itself_where_no_two_items_share_the_field() -> None:
    found = clustered_alike([("a", documents()), ("b", documents(passage=lambda i: f"{PASSAGE} of item {i}"))], None)
    assert [(one.field, one.clusters.count) for one in found] == [("passage", 20), (None, 60)]


def test_tasks_over_the_same_passages_are_joined() -> None:
    first, second = documents(30), documents(60)
    parts = clustered_alike([("a", first), ("b", second)], None)
    assert clusters_over_tasks(parts).count == 20
    apart = [clustered(first, "none", "a"), clustered(second, "none", "b")]
    assert clusters_over_tasks(apart).count == 90
    assert clusters_over_tasks([parts[0], clustered(second, "label", "b")]).count == 10 + 3
