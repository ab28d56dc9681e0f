"""Parallel corpora: the shipped one is parallel and its answers are spans; files that are not parallel are refused."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path

import pytest
from hub_data import XNLI, XQUAD

from lm_eval_clas import ClasError, ParallelInputBuilder
from lm_eval_clas.disk.files import PACKAGE
from lm_eval_clas.languages.detection import Detector
from lm_eval_clas.masks.adding import MonolingualText
from lm_eval_clas.texts.corpora import MINI_LANGUAGES, XNLI_LANGUAGES, XQUAD_LANGUAGES

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
        ({"en_txt": "a\nb\nc\n", "hi_txt": "a\nb\n"}, r"line 3 is in 'en' and missing or blank in 'hi' \(1 such\)"),
        ({"en_txt": "a\n", "hi_txt": "a\nb\n"}, "line 2 is in 'hi' and missing or blank in 'en'"),
        ({"en_txt": "a\n\nc\n", "hi_txt": "a\nb\nc\n"}, "line 2 is in 'hi' and missing or blank in 'en'"),
        (
            {"en_jsonl": '{"id": 1, "text": "x"}', "hi_jsonl": '{"id": 2, "text": "x"}'},
            "1 is in 'en' and missing",
        ),
        ({"en_jsonl": '{"id": 1, "text": "x"}\n{"id": 1, "text": "y"}'}, "line 2: 1 is there twice"),
        ({"en_jsonl": '{"id": 1}'}, "needs a 'text' that is a string, not None"),
        ({"en_jsonl": "{"}, "line 1: it is no JSON"),
        ({"en_jsonl": "[]"}, "line 1: it is no JSON object; each line must be one"),
        ({"gibberish_txt": "a"}, "holds no texts"),
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
        from lm_eval_clas.texts.splits import xquad_split

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


def test_only_lf_and_crlf_end_a_line(tmp_path: Path) -> None:
    inside = "a\rb\u2028c\u0085d\x0be\x0cf\x1cg"
    folder = tmp_path / "c"
    folder.mkdir()
    (folder / "en.txt").write_bytes(f"{inside}\r\nx\r\r\ny\r".encode())
    (folder / "hi.txt").write_bytes(b"1\n2\n3\n")
    texts = ParallelInputBuilder(str(folder)).build()
    assert texts.texts["en"] == (inside, "x\r", "y\r")
    assert MonolingualText.parse(f"quy={folder / 'en.txt'}").lines == (inside, "x", "y")


@pytest.mark.parametrize("seed", range(30))
def test_lines_of_any_text_come_back_with_their_numbers(tmp_path: Path, seed: int) -> None:
    """Generated texts, blank lines and ends of lines: as written, in every language, paired by number."""
    chance = random.Random(seed)
    count = chance.randrange(1, 8)
    blank = [chance.random() < 0.3 for _ in range(count)]
    blank[chance.randrange(count)] = False
    letters = "aé中😀 \t\u2028\u2029\u0085\x0b\x0c\x1c\x00"

    def text() -> str:  # CR inside, but not at the end, where it would be part of CRLF
        return "".join(chance.choice(letters + "\r") for _ in range(chance.randrange(5))) + chance.choice("aé中😀")

    folder = tmp_path / "c"
    folder.mkdir()
    lines = {code: [chance.choice(["", " ", "\u3000"]) if empty else text() for empty in blank] for code in ("en", "hi", "de")}
    for code, every in lines.items():
        end = chance.choice(["\n", "\r\n"])
        content = chance.choice(["", "\ufeff"]) + end.join(every) + chance.choice(["", end, end * 3])
        (folder / f"{code}.txt").write_bytes(content.encode())
    texts = ParallelInputBuilder(str(folder)).build()
    assert texts.ids == tuple(f"line {number}" for number, empty in enumerate(blank, start=1) if not empty)
    assert texts.texts == {code: tuple(one for one in every if one.strip()) for code, every in sorted(lines.items())}


@pytest.mark.parametrize("seed", range(20))
def test_json_lines_come_back_with_blank_lines_between(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    ids = [chance.choice([number, f"x{number}\n", number + 0.5]) for number in range(chance.randrange(1, 6))]
    lines = [
        json.dumps({"id": one, "language": code, "text": f"{code} {one}\r\u2028"}, ensure_ascii=chance.random() < 0.5)
        for one in ids
        for code in ("en", "HI")
    ]
    for _ in range(chance.randrange(4)):
        lines.insert(chance.randrange(len(lines) + 1), chance.choice(["", "  ", "\t"]))
    (tmp_path / "c.jsonl").write_bytes(chance.choice([b"\n", b"\r\n"]).join(line.encode() for line in lines))
    texts = ParallelInputBuilder(str(tmp_path / "c.jsonl")).build()
    assert texts.ids == tuple(map(str, ids))
    assert texts.texts["hi"] == tuple(f"HI {one}\r\u2028" for one in ids)


def test_files_of_no_language_are_passed_over_with_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write(tmp_path / "c", en_txt="a\n", hi_txt="b\n", README_txt="Read me.\nAnd this.\n")
    (folder / "._hi.txt").write_bytes(b"\x00\x05\x16\x07\xff")
    (folder / ".DS_Store").write_bytes(b"\xff")
    (folder / "LICENSE").touch()
    (folder / "old").mkdir()
    for _ in range(2):
        assert ParallelInputBuilder(str(folder)).build().languages == ("en", "hi")
    passed = ".DS_Store, ._hi.txt, LICENSE, README.txt, old"
    said = f"Corpus '{folder}': passed over {passed}, not named LANGUAGE.txt or LANGUAGE.jsonl."
    assert [record.getMessage() for record in caplog.records] == [said]
    with pytest.raises(ClasError, match="has no fi; it has en, hi"):
        ParallelInputBuilder(str(folder), ["en", "fi"]).build()


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": True, "text": "x"}, "line 2: needs an 'id' that is a string or a number, not True"),
        ({"id": None, "text": "x"}, "a string or a number, not None"),
        ({"text": "x"}, "a string or a number, not None"),
        ({"id": [1], "text": "x"}, r"a string or a number, not \[1\]"),
        ({"id": float("nan"), "text": "x"}, "a string or a number, not nan"),
        ({"id": 0, "text": "x"}, "0 is there twice for language 'en'"),
        ({"id": "0", "text": "x"}, "0 is there twice for language 'en'"),
        ({"id": 1, "text": 2}, "needs a 'text' that is a string, not 2"),
        ({"id": 1, "text": " "}, "the text is empty"),
        ({"id": 1, "text": "\ud800"}, r"half a character \(a lone surrogate\)"),
        ({"id": 1, "text": "x", "language": "gibberish"}, "must be a language code .BCP-47, e.g. hi., not 'gibberish'"),
        ({"id": 1, "text": "x", "language": True}, "must be a language code .BCP-47, e.g. hi., not True"),
    ],
)
def test_a_wrong_row_is_refused(tmp_path: Path, row: dict[str, object], message: str) -> None:
    rows = [{"id": 0, "language": "en", "text": "x"}, {"language": "en", **row}]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ClasError, match=message):
        ParallelInputBuilder(str(tmp_path / "c.jsonl")).build()


def test_two_files_of_one_language_and_a_blank_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ClasError, match=r"zh.txt' and 'zho.txt' are both of language 'zh'"):
        ParallelInputBuilder(str(write(tmp_path / "c", zh_txt="a", zho_txt="b"))).build()
    with pytest.raises(ClasError, match=r"hi.jsonl' and 'hi.txt' are both of language 'hi'"):
        ParallelInputBuilder(str(write(tmp_path / "d", hi_txt="a", hi_jsonl='{"id": 1, "text": "b"}'))).build()
    with pytest.raises(ClasError, match=r"hi.txt' holds no texts; fill it, or take it away"):
        ParallelInputBuilder(str(write(tmp_path / "e", en_txt="a", hi_txt="\n\n"))).build()
