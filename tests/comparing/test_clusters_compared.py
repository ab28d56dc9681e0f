"""Tables of items that hang together: found in the logged documents, named, or switched off; told in every format."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_runs import STEERED, write_run

from lm_eval_clas import ClasError
from lm_eval_clas.comparing.compare_runs import compare
from lm_eval_clas.comparing.results_files import read_runs
from lm_eval_clas.comparing.rows import Comparison
from lm_eval_clas.comparing.tables import latex, markdown_table
from lm_eval_clas.evidence.clusters import Clusters, within_correlation
from lm_eval_clas.evidence.paired_tests import average_interval, mcnemar, sign_flips

Documents = Mapping[str, Sequence[Mapping[str, Any]]]
PASSAGE = "The night train leaves the capital at nine in the evening and reaches the coast at dawn"


def passages(items: int, each: int, **more: Any) -> list[dict[str, Any]]:
    return [{"context": f"{PASSAGE} {item // each}.", "topic": item % 7, **more} for item in range(items)]


def right_or_wrong(seed: int, count: int, each: int, shift: float = 0.0) -> list[float]:
    """Answers that are right or wrong alike within a passage."""
    rng = np.random.default_rng(seed)
    easy = rng.normal(size=count) + shift
    return [float(rng.normal() + easy[item // each] > 0) for item in range(count * each)]


def write_runs(folder: Path, documents: Documents, shift: float = 0.0, samples: bool = True) -> Path:
    """An unsteered run and a steered one on these documents, five to a passage."""
    for order, (name, steering) in enumerate((("hf", None), ("clas", STEERED))):
        scores = {
            task: right_or_wrong(10 * number + order, len(docs) // 5, 5, shift * order)
            for number, (task, docs) in enumerate(documents.items())
        }
        write_run(folder / name, scores, steering, samples=samples, documents=documents)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """60 items in 12 passages, in two languages."""
    return write_runs(tmp_path / "runs", {f"xnli_{one}": passages(60, 5) for one in ("hi", "sw")}, shift=0.4)


def gains_of(runs: Path, task: str) -> np.ndarray:
    scores = []
    for name in ("hf", "clas"):
        (path,) = (runs / name).glob(f"samples_{task}_*")
        by_number = {line["doc_id"]: line["acc"] for line in map(json.loads, path.read_text().splitlines())}
        scores.append([by_number[number] for number in sorted(by_number)])
    return np.subtract(scores[1], scores[0])


def test_passages_are_found_and_flipped_together(runs: Path) -> None:
    found = compare(read_runs([runs]), "xnli")
    assert (found.test, found.cluster_fields) == ("cluster permutation", {"hi": "context", "sw": "context"})
    clusters = Clusters.of([item // 5 for item in range(60)])
    both = [gains_of(runs, f"xnli_{language}") for language in ("hi", "sw")]
    correlations = [within_correlation(gains, clusters) for gains in both]
    for gains, correlation, cell in zip(both, correlations, found.rows[1].cells.values(), strict=True):
        assert (cell.items, cell.clusters) == (60, 12)
        assert cell.correlation == pytest.approx(correlation)
        assert cell.p_value == sign_flips(gains, np.zeros(60), clusters)
    low, high = average_interval(both, [clusters] * 2, parallel=[0, 0])
    assert (found.rows[1].low, found.rows[1].high) == pytest.approx((100 * low, 100 * high))
    assert found.rows[1].correlation == pytest.approx(np.mean([one for one in correlations if one is not None]))
    assert found.rows[0].cells["hi"].clusters is None


def test_clusters_can_be_named_and_switched_off(runs: Path) -> None:
    read = read_runs([runs])
    off = compare(read, "xnli", cluster="none")
    assert (off.test, off.cluster_fields) == ("exact McNemar", {})
    assert not any("cluster" in note for note in off.notes)
    cell = off.rows[1].cells["hi"]
    assert (cell.clusters, cell.correlation) == (60, None)
    named = compare(read, "xnli", cluster="topic")
    assert (named.rows[1].cells["hi"].clusters, named.cluster_fields["hi"]) == (7, "topic")
    assert named.rows[1].cells["hi"].p_value not in (cell.p_value, compare(read, "xnli").rows[1].cells["hi"].p_value)
    with pytest.raises(ClasError, match=r"60 of 60 documents of xnli_hi have no field 'paragraph' .*there are context, topic"):
        compare(read, "xnli", cluster="paragraph")


def test_every_format_tells_of_clusters(runs: Path, clas: Callable[..., tuple[int, str, str]]) -> None:
    found = compare(read_runs([runs]), "xnli", resamples=100)
    told = (
        "Items of one 'context' hang together: 60 items are in 12 clusters, and tests and intervals flip and draw clusters.",
        "Correlation of gains within clusters, mean over languages: 'clas alpha 1' ",
    )
    for text in (markdown_table(found), latex(found), clas("table", runs, "--resamples", 100)[1]):
        words = " ".join(text.split()).translate({0x2018: "'", 0x2019: "'"})  # a paper has other quotes
        assert not [one for one in told if one.casefold() not in words.casefold()], words
        assert "60 items per language in 12 clusters" in words
        assert "paired cluster permutation test" in words
        assert "bootstrap over clusters of items" in words
    printed = clas("table", runs, "--resamples", 100, "--format", "json")[1]
    assert Comparison.model_validate_json(printed) == found
    lines = list(csv.DictReader(StringIO(clas("table", runs, "--resamples", 100, "--format", "csv")[1])))
    (line,) = [one for one in lines if (one["kind"], one["language"]) == ("method", "hi")]
    assert int(line["clusters"]) == 12
    assert float(line["correlation"]) == pytest.approx(found.rows[1].cells["hi"].correlation)


def test_few_clusters_and_one_are_said_to_show_nothing(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, {"xnli_hi": passages(20, 5), "xnli_sw": [{"cluster": "all"}] * 20})
    found = compare(read_runs([runs]), "xnli")
    row = found.rows[1]
    assert (row.cells["hi"].clusters, row.cells["sw"].clusters) == (4, 1)
    assert (row.cells["sw"].p_value, row.cells["sw"].p_holm, row.low) == (None, None, None)
    assert row.cells["hi"].p_value is not None
    assert row.cells["hi"].p_value >= 2 / 2**4
    for note in (
        "All items of sw are in one cluster, so nothing is tested there.",
        "Fewer than 6 clusters in hi: no test of so few can reach p < 0.05.",
        "No interval of an average with a language of fewer than 6 clusters.",
    ):
        assert note in found.notes


def test_each_language_has_clusters_of_its_own(tmp_path: Path) -> None:
    """Single items stay with themselves; languages of other items are drawn apart."""
    runs = write_runs(tmp_path, {"xnli_hi": passages(60, 5), "xnli_sw": passages(40, 1)})
    found = compare(read_runs([runs]), "xnli")
    assert found.cluster_fields == {"hi": "context"}
    assert (found.rows[1].cells["hi"].clusters, found.rows[1].cells["sw"].clusters) == (12, 40)
    both = [gains_of(runs, "xnli_hi"), gains_of(runs, "xnli_sw")]
    low, _ = average_interval(both, [Clusters.of([i // 5 for i in range(60)]), Clusters.single(40)])
    assert found.rows[1].low == pytest.approx(100 * low)
    assert found.test == "cluster permutation"
    assert found.rows[1].cells["sw"].p_value == mcnemar(both[1] > 0, both[1] < 0)
    assert "No items hang together in sw: the test there is exact McNemar." in found.notes


def test_items_of_the_same_number_in_other_passages_are_drawn_apart(tmp_path: Path) -> None:
    """As the first items of data sets that are no translations; joined, their passages would be three."""
    runs = write_runs(tmp_path, {"mlqa_hi": passages(60, 5), "mlqa_sw": passages(60, 4), "mlqa_de": passages(60, 5)})
    found = compare(read_runs([runs]), "mlqa")
    both = [gains_of(runs, f"mlqa_{one}") for one in ("de", "hi", "sw")]
    clusters = [Clusters.of([i // each for i in range(60)]) for each in (5, 5, 4)]
    low, high = average_interval(both, clusters, parallel="aab")
    assert (found.rows[1].low, found.rows[1].high) == pytest.approx((100 * low, 100 * high))
    assert found.rows[1].smallest is not None
    told = (
        "Items of de, hi, sw have the same numbers, but not the same clusters: the interval takes them as items that have "
        "nothing to do with one another (de, hi; sw), and is too narrow if they are translations."
    )
    assert told in found.notes
    assert "No items hang together" not in " ".join(found.notes)
    alike = compare(read_runs([runs]), "mlqa", cluster="topic")
    assert "the same numbers" not in " ".join(alike.notes)


def test_all_languages_are_clustered_by_the_same_field(tmp_path: Path) -> None:
    """A label that is long in one language makes no clusters there, and a summary that is longer is no other field."""
    documents = {
        f"xnli_{one}": [
            {**document, "summary": f"{PASSAGE * times} {number // 5}", "label": f"{label} {number // 10}"}
            for number, document in enumerate(passages(60, 5))
        ]
        for one, times, label in (("de", 1, "Law"), ("hi", 3, PASSAGE * 5), ("sw", 3, "Law"))
    }
    assert set(compare(read_runs([write_runs(tmp_path, documents)]), "xnli").cluster_fields.values()) == {"summary"}


def test_without_samples_nothing_is_clustered(tmp_path: Path) -> None:
    runs = write_runs(tmp_path, {"xnli_hi": passages(60, 5)}, samples=False)
    found = compare(read_runs([runs]), "xnli", cluster="context")
    assert (found.test, found.cluster_fields, found.rows[1].cells["hi"].clusters) == ("none", {}, None)
