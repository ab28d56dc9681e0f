"""The report: it says what the files say, escapes what they hold, and does without what is missing."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import CODES, FAMILIES, make_comparison, make_masks, write_study

from lm_eval_clas import ClasError
from lm_eval_clas.comparison import Cell, Comparison, Row
from lm_eval_clas.files import write_text
from lm_eval_clas.report import write_report
from lm_eval_clas.report.pictures import embedded
from lm_eval_clas.report.verdicts import against_controls, beaten, by_language, headline, primary_of, verdict
from lm_eval_clas.report.words import drawable, interval, listed, named, number, signed

EVIL = "<script>alert('1')</script>\"><img src=x onerror=alert(1)> & $x^ \u0007 {{ 7 * 7 }}"
SECTIONS = [
    *("run", "results", "controls", "significance", "strengths", "neurons", "geometry", "stability", "causes"),
    *("languages", "again"),
]


class Page(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def sections(self) -> list[str]:
        return [str(attributes["id"]) for tag, attributes in self.elements if tag == "section"]

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"), 4)


@pytest.fixture
def copy(study: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(study, tmp_path / "study"))


def test_a_whole_study(study: Path, tmp_path: Path) -> None:
    path, left_out = write_report(study, tmp_path / "deep" / "a.html")
    page = Page(path.read_text(encoding="utf-8"))
    assert page.sections == ["summary", *SECTIONS]
    assert left_out == []
    assert "Not in this report" not in page.text
    for comparison_file in (study / "tables" / f"{family}.json" for family in FAMILIES):
        comparison = Comparison.model_validate_json(comparison_file.read_bytes())
        for row in comparison.rows:
            assert row.label in page.text
            for cell in row.cells.values():
                assert number(cell.score) in page.text
                assert cell.gain is None or signed(cell.gain) in page.text
    assert "Tested against uniform itself" in page.text
    assert "clas_xquad against uniform" not in page.text  # no main table of its own
    for text in ("13\u201315", "clas profile --model google/gemma-3-270m", "transformers", "f1_lang", "arXiv 2601.16390"):
        assert text in page.text
    ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = {str(attributes["href"]) for _, attributes in page.elements if (attributes.get("href") or "").startswith("#")}
    assert {link.removeprefix("#") for link in links} <= set(map(str, ids))


def test_writing_twice_gives_the_same_page(study: Path, tmp_path: Path) -> None:
    pages = [write_report(study, tmp_path / name)[0].read_bytes() for name in ("a.html", "b.html")]
    assert pages[0] == pages[1]


def test_pictures_say_numbers(study: Path, tmp_path: Path) -> None:
    page = Page(write_report(study, tmp_path / "a.html")[0].read_text(encoding="utf-8"))
    drawn = [svg for svg in page.all("svg") if svg.get("aria-hidden") != "true"]
    texts = [str(svg["aria-label"]) for svg in drawn if svg["role"] == "img"] + [str(img["alt"]) for img in page.all("img")]
    assert len(texts) == len(drawn) + 2
    assert all(re.search(r"\d\.\d", text) for text in texts), texts


def test_what_files_say_is_text_and_never_markup(tmp_path: Path) -> None:
    study = write_study(tmp_path / "evil", 3, name=EVIL)
    source = write_report(study)[0].read_text(encoding="utf-8")
    page = Page(source)
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link"} - {"link"}
    assert [link["href"] for link in page.all("link")] == ["data:,"]
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert all(str(img["src"]).startswith("data:image/png;base64,") for img in page.all("img"))
    assert "alert('1')" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", source)
    assert "default-src &#39;none&#39;" in source or "default-src 'none'" in source


@pytest.mark.parametrize(
    ("taken", "without"),
    [
        (["recipe.yaml"], []),
        (["stages"], []),
        (["stages", "recipe.yaml"], ["again"]),
        (["tables"], ["results", "controls", "significance"]),
        (["results"], []),
        (["masks"], []),
        (["tune"], ["strengths"]),
        (["masks", "tune"], ["strengths", "neurons"]),
        (["masks/xquad", "tune/xquad"], []),
        (["analysis/xquad/geometry.json"], []),
        (["analysis/xquad", "analysis/xnli"], ["geometry", "causes"]),
        (["analysis"], ["geometry", "stability", "causes"]),
        (
            ["tables", "masks", "tune", "results", "recipe.yaml", "stages"],
            ["run", "results", "controls", "significance", "strengths", "neurons", "languages", "again"],
        ),
    ],
)
def test_any_part_may_be_missing(copy: Path, taken: list[str], without: list[str]) -> None:
    for name in taken:
        shutil.rmtree(copy / name) if (copy / name).is_dir() else (copy / name).unlink()
    path, left_out = write_report(copy)
    page = Page(path.read_text(encoding="utf-8"))
    gone = [section for section in SECTIONS if section not in page.sections]
    assert len(left_out) == len(gone)
    assert all(line in page.text for line in left_out)
    assert gone == without


def test_strengths_come_from_the_run_of_tuning_if_masks_have_none(copy: Path) -> None:
    config = json.loads((copy / "tune" / "xnli" / "masks" / "clas_config.json").read_text())
    for name in ("masks", "tune"):
        shutil.rmtree(copy / name)
    path = copy / "tune" / "xnli" / "tuned.json"
    write_text(path, json.dumps(config["tuned"]))
    assert "strengths" in Page(write_report(copy)[0].read_text()).sections
    config["tuned"]["clas_xnli"]["hi"]["measured"] = []
    write_text(path, json.dumps(config["tuned"]))
    with pytest.raises(ClasError, match=r"tune' cannot be drawn"):
        write_report(copy)


@pytest.mark.parametrize(
    "name",
    [
        *("tables/clas_xquad.json", "analysis/xnli/geometry.json", "analysis/stability.json", "analysis/xnli/causes.json"),
        *("stages/tune.json", "results/hf/results_2026-11-23T09-00-00.json", "tune/xnli/masks/clas_config.json"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": "\\ud800"}', b"\xff\xfe", b"[" * 100_000])
def test_damaged_files_are_named(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    with pytest.raises(ClasError, match=re.escape(Path(name).name)):
        write_report(copy)
    assert not (copy / "report.html").exists()


def test_a_damaged_picture_is_named(copy: Path) -> None:
    for name in ("tables", "masks", "tune", "stages"):
        shutil.rmtree(copy / name)
    picture = copy / "analysis" / "xnli" / "geometry.png"
    for content in (b"", b"GIF89a", picture.read_bytes()[:2000]):
        picture.write_bytes(content)
        with pytest.raises(ClasError, match=r"geometry\.png' is damaged"):
            embedded(picture, "x")
    with pytest.raises(ClasError, match=r"geometry\.png' is damaged"):
        write_report(copy)


def test_nothing_to_show(tmp_path: Path) -> None:
    with pytest.raises(ClasError, match="no folder"):
        write_report(tmp_path / "none")
    with pytest.raises(ClasError, match="nothing that a report could show"):
        write_report(tmp_path)


def test_a_comparison_with_holes(tmp_path: Path) -> None:
    rows = [
        Row(label="a", kind="method", cells={"hi": Cell(score=float("nan"), gain=float("nan"), p_holm=float("nan"))}),
        Row(label="b", kind="control", cells={"xx-what": Cell(score=1.0)}, gain=float("inf"), low=0.1),
        Row(label="c", kind="cited", cells={}),
    ]
    holes = Comparison(
        family="f", tasks={}, metric="m", unit="u", test="t", baseline="gone", languages=["hi", "xx-what"], rows=rows,
        average_languages=[],
    )  # fmt: skip
    for number_, one in enumerate((holes, holes.model_copy(update={"rows": [], "languages": []}))):
        write_text(tmp_path / "tables" / f"{number_}.json", json.dumps(one.model_dump()))
    assert "f against gone" in Page(write_report(tmp_path)[0].read_text()).text


def comparison(gain: float, low: float | None, high: float | None, uniform: float = 0.0) -> Comparison:
    """A comparison of three languages whose method has this average gain."""
    codes = ["en", "hi", "de"]
    made = make_comparison("clas_xnli", codes, make_masks(codes, 8, np.random.default_rng(0)), 0, np.random.default_rng(0))
    rows = {row.label: row for row in made.rows}
    clas = rows["clas"].model_copy(update={"gain": gain, "low": low, "high": high, "percent": 1.0})
    controls = [rows["uniform"].model_copy(update={"gain": uniform}), rows["random"].model_copy(update={"gain": -1.0})]
    return made.model_copy(update={"rows": [rows["hf"], clas, *controls]})


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 0.9, "clas helped on clas_xnli"),
        (-0.9, -0.1, "clas hurt on clas_xnli"),
        (-0.1, 0.9, "cannot be told whether clas helped or hurt"),
        (0.0, 0.9, "cannot be told whether clas helped or hurt"),
        (None, None, "without an interval"),
    ],
)
def test_the_headline_follows_the_interval(low: float | None, high: float | None, words: str) -> None:
    assert words in headline(comparison(0.5, low, high))


def test_where_lower_is_better_a_gain_is_a_loss() -> None:
    made = comparison(0.5, 0.1, 0.9, uniform=0.75).model_copy(update={"higher_is_better": False})
    assert "clas hurt on clas_xnli (acc) (lower is better)" in headline(made)
    assert "ahead of it by 0.25" in " ".join(against_controls(made))


def test_nothing_changed_is_said_so() -> None:
    assert "changed nothing" in headline(comparison(0.0, 0.0, 0.0))


def test_controls_are_compared_in_words() -> None:
    behind = " ".join(against_controls(comparison(0.5, 0.1, 0.9, uniform=0.75)))
    assert "behind it by 0.25" in behind
    assert "ahead of it by 1.50" in behind
    assert "does not need its choice of neurons" in behind
    assert "was not tested" in behind
    ahead = " ".join(against_controls(comparison(0.5, 0.1, 0.9, uniform=0.25)))
    assert "does not need" not in ahead
    alone = comparison(0.5, 0.1, 0.9)
    alone = alone.model_copy(update={"rows": alone.rows[:3]})
    assert "No control with random masks" in " ".join(against_controls(alone))


def test_controls_that_were_tested_need_no_caveat() -> None:
    first = comparison(0.5, 0.1, 0.9)
    others = [first.model_copy(update={"baseline": label}) for label in ("uniform", "random")]
    assert "was not tested" not in " ".join(against_controls(first, [first, *others]))


@pytest.mark.parametrize(
    ("clas", "uniform", "random", "words"),
    [
        (2.0, 1.0, 1.0, "beats all: hf (significantly), uniform and random"),
        (2.0, 3.0, 1.0, "beats hf (significantly) and random; behind uniform"),
        (-1.0, 1.0, 1.0, "behind hf (significantly), uniform and random"),
        (0.0, 0.0, 1.0, "equals hf and uniform; behind random"),
    ],
)
def test_verdicts_by_language(clas: float, uniform: float, random: float, words: str) -> None:
    made = comparison(0.5, 0.1, 0.9)
    for row, gain in zip(made.rows, (None, clas, uniform, random), strict=True):
        p_holm = None if not gain else 0.01
        row.cells["hi"] = Cell(score=30 + (gain or 0), gain=gain, p_holm=p_holm)
        row.cells["de"] = Cell(score=30, gain=0.0 if row.kind != "baseline" else None)
    assert verdict(made, "hi") == words
    assert verdict(made, "en") == "anchor, never steered"
    row = primary_of(made)
    assert row is not None
    wins = int(clas > 0)
    assert f"{wins} did better than hf, {int(clas < 0)} worse" in by_language(made, row)
    assert f"in {int(words.startswith('beats all'))} of 2 steered languages" in beaten(made)


def test_words() -> None:
    assert [number(None), number(float("nan")), number(-1.005, 1)] == ["\u2013", "\u2013", "\u22121.0"]
    assert [signed(0.001), signed(-0.001), signed(0.5), signed(-2)] == ["0.00", "0.00", "+0.50", "\u22122.00"]
    assert interval(-1, None) == "\u2013"
    assert [named("a"), named("a, b")] == ["a", "‘a, b’"]
    assert [listed([]), listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert drawable("a\x00b" + "c" * 50, 10) == "a\ufffdbcccccc\u2026"


def test_a_large_picture_is_made_smaller(tmp_path: Path) -> None:
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (900, 1800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    assert len(embedded(tmp_path / "a.png", "x")) < 1_000_000 < (tmp_path / "a.png").stat().st_size


def test_there_are_languages_enough_for_the_browser() -> None:
    assert len(CODES) == len(set(CODES)) == 40
