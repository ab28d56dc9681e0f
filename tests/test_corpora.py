"""Parallel corpora: the shipped one is parallel and its answers are spans; files that are not parallel are refused."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hub_data import XNLI, XQUAD

from lm_eval_clas import ClasError, ParallelInputBuilder
from lm_eval_clas.corpora import MINI_LANGUAGES, XNLI_LANGUAGES, XQUAD_LANGUAGES
from lm_eval_clas.files import PACKAGE
from lm_eval_clas.languages import Detector

FIELDS = ["id", "passage", "question", "answer", "premise", "entailment", "neutral", "contradiction"]


def mini(language: str) -> list[dict[str, str]]:
    text = (PACKAGE / "data" / "mini" / f"{language}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_mini_corpus_covers_the_languages_of_both_benchmarks() -> None:
    assert set(MINI_LANGUAGES) == set(XNLI_LANGUAGES) | set(XQUAD_LANGUAGES)
    files = {path.stem for path in (PACKAGE / "data" / "mini").iterdir()}
    assert files == set(MINI_LANGUAGES)


@pytest.mark.parametrize("language", MINI_LANGUAGES)
def test_the_mini_corpus_is_parallel_and_its_answers_are_spans(language: str) -> None:
    rows, english = mini(language), mini("en")
    assert [row["id"] for row in rows] == [row["id"] for row in english]
    assert len(rows) == 16
    for row in rows:
        assert list(row) == FIELDS
        assert row["passage"].count(row["answer"]) == 1, row["id"]
        assert row["answer"] not in row["question"]
        assert len({row["entailment"], row["neutral"], row["contradiction"]}) == 3
        for value in row.values():
            assert value == unicodedata.normalize("NFC", value).strip()
            assert "\n" not in value
    if language != "en":
        assert not any(row[field] == other[field] for row, other in zip(rows, english, strict=True) for field in FIELDS[1:3])


def test_every_mini_passage_is_in_its_language() -> None:
    detector = Detector(MINI_LANGUAGES)
    for language in MINI_LANGUAGES:
        detected = [detector.detect(row["passage"]) for row in mini(language)]
        assert detected.count(language) >= 15, (language, detected)


def test_samples_are_the_same_items_everywhere_and_nested() -> None:
    small, large = (ParallelInputBuilder("mini", ["hi", "en"], n).build() for n in (4, 9))
    assert large.ids[:4] == small.ids == tuple(row["id"] for row in mini("en")[:4])
    assert small.languages == ("hi", "en")
    by_id = {row["id"]: row for row in mini("hi")}
    assert small.texts["hi"] == tuple(f"संदर्भ: {by_id[i]['passage']}\nप्रश्न: {by_id[i]['question']}\nउत्तर:" for i in small.ids)
    assert small.sha256() == ParallelInputBuilder("mini", ["hi", "en"], 4).build().sha256()
    assert small.sha256() != large.sha256()


def write(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("_", ".", 1)).write_text(content, encoding="utf-8")
    return folder


def test_folders_of_text_are_parallel_by_line(tmp_path: Path) -> None:
    folder = write(tmp_path / "c", en_txt="one\ntwo\n", hi_txt="\ufeffएक\r\nदो", zho_txt="一\u2028\n二\n")
    texts = ParallelInputBuilder(str(folder)).build()
    assert set(texts.languages) == {"en", "hi", "zh"}
    assert {texts.texts[one][texts.ids.index("line 2")] for one in texts.languages} == {"two", "दो", "二"}


def test_json_lines_are_parallel_by_id(tmp_path: Path) -> None:
    rows = [{"id": i, "language": one, "text": f"{one} {i}"} for i in (1, 2) for one in ("en", "deu_Latn")]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    texts = ParallelInputBuilder(str(tmp_path / "c.jsonl")).build()
    assert texts.texts["de"] == tuple(f"deu_Latn {i}" for i in texts.ids)
    folder = write(tmp_path / "d", en_jsonl='{"id": "a", "text": "x"}\n{"id": "b", "text": "y"}',
                   sw_jsonl='{"id": "b", "text": "Y"}\n{"id": "a", "text": "X"}')  # fmt: skip
    texts = ParallelInputBuilder(str(folder)).build()
    assert dict(zip(texts.ids, texts.texts["sw"], strict=True)) == {"a": "X", "b": "Y"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"en_txt": "a\nb\nc\n", "hi_txt": "a\nb\n"}, r"line 3 is in 'en' and missing in 'hi' \(1 such\)"),
        ({"en_txt": "a\n", "hi_txt": "a\nb\n"}, "line 2 is in 'hi' and missing in 'en'"),
        ({"en_txt": "a\n\nc\n", "hi_txt": "a\nb\nc\n"}, r"en.txt', line 2: the text is empty"),
        ({"en_jsonl": '{"id": 1, "text": "x"}', "hi_jsonl": '{"id": 2, "text": "x"}'}, "1 is in 'en' and missing in 'hi'"),
        ({"en_jsonl": '{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}'}, "line 2: 1 is there twice"),
        ({"en_jsonl": '{"id": 1}'}, "needs an 'id' and a 'text'"),
        ({"en_jsonl": "{"}, "line 1: not JSON"),
        ({"en_jsonl": "[]"}, "must be a JSON object"),
        ({"gibberish_txt": "a"}, "not a language code"),
        ({}, "holds no texts"),
    ],
)
def test_what_is_not_parallel_is_refused(tmp_path: Path, files: dict[str, str], message: str) -> None:
    with pytest.raises(ClasError, match=message):
        ParallelInputBuilder(str(write(tmp_path / "c", **files))).build()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "There is no corpus 'nowhere'"),
        (("mini", ["en", "fi"]), "has no fi; it has ar"),
        (("mini", ["en", "nonsense"]), "has no nonsense"),
        (("mini", None, 17), "corpus 'mini' has 16 items"),
        (("xnli", ["en", "ro"]), "has no ro"),
    ],
)
def test_bad_requests_are_one_sentence(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ClasError, match=message):
        ParallelInputBuilder(*arguments).build()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("corpus", "languages", "size"),
    [
        pytest.param("xquad", XQUAD_LANGUAGES, 111, marks=pytest.mark.hub_data(XQUAD)),
        pytest.param("xnli", XNLI_LANGUAGES, 200, marks=pytest.mark.hub_data(XNLI)),
    ],
)
def test_benchmark_corpora_give_the_profiling_rows_as_prompts(corpus: str, languages: tuple[str, ...], size: int) -> None:
    texts = ParallelInputBuilder(corpus).build()
    assert texts.languages == languages
    assert len(texts.ids) == size
    for language, lines in texts.texts.items():
        assert len(set(lines)) >= size - 2, language  # a few questions became one in translation
        assert all(line.endswith(":") and "\ufeff" not in line for line in lines), language
    if corpus == "xquad":
        from lm_eval_clas.splits import xquad_split

        assert {xquad_split(one) for one in texts.ids} == {"profile"}
        assert texts.texts["hi"][0].startswith("संदर्भ: ")


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    def unreachable(*arguments: object, **options: object) -> None:
        raise ConnectionError("Couldn't reach 'google/xquad' on the Hub (LocalEntryNotFoundError)\nand more lines")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(ClasError, match=r"Cannot load google/xquad \(xquad.en\).*--corpus mini") as caught:
        ParallelInputBuilder("xquad", ["en", "hi"]).build()
    assert "\n" not in str(caught.value)
