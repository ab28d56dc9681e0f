"""The report: it says what the files say, escapes what they hold, and does without what is missing."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_study import CODES, make_comparison, make_masks, make_steering, rebased, write_study

from lm_eval_clas import ClasError
from lm_eval_clas.comparing.rows import Comparison, LanguageCell, Row
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.drawing.web_page import embedded
from lm_eval_clas.study.report.rendering import write_report
from lm_eval_clas.study.report.run_sections import run_section
from lm_eval_clas.study.report.sources import read_study
from lm_eval_clas.study.report.statements import first_minute, smallest_seen, task_sentence
from lm_eval_clas.study.report.verdicts import (
    against_controls,
    beaten,
    own_controls,
    primary_of,
    steered_languages,
    told_by_language,
    verdict,
)
from lm_eval_clas.study.report.view import Table
from lm_eval_clas.study.report.wording import drawable, interval, listed, named, number_text, signed, witnessed

EVIL = "<script>alert('1')</script>\"><img src=x onerror=alert(1)> & $x^ {{ 7 * 7 }}"
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
    for comparison_file in (study / "tables").glob("*.json"):
        comparison = Comparison.model_validate_json(comparison_file.read_bytes())
        for row in comparison.rows:
            assert row.label in page.text
            if "-against-" in comparison_file.stem and row.label != "clas":
                continue  # of these, only the method's row is shown
            for cell in row.cells.values():
                assert number_text(cell.score) in page.text
                assert cell.gain is None or signed(cell.gain) in page.text
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
        (["analysis/xquad/geometry.json"], []),
        (["analysis/xquad", "analysis/xnli/geometry.json", "analysis/xnli/geometry.png"], ["geometry"]),
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
    assert set(without) <= set(gone)
    assert len(left_out) == len(gone)
    assert all(line in page.text for line in left_out)
    assert gone == without


def test_strengths_come_from_the_run_of_tuning_if_masks_have_none(copy: Path) -> None:
    before = Page(write_report(copy)[0].read_text()).text
    for part in ("xquad", "xnli"):
        shutil.rmtree(copy / "tune" / part / "masks")
    assert read_study(copy).masks.keys() == {"xquad", "xnli"}  # those of masks/, whose hash has no part in strengths
    assert Page(write_report(copy)[0].read_text()).text == before
    path = copy / "tune" / "xnli" / "tuned.json"
    tuned = json.loads(path.read_text())
    tuned["clas_xnli"]["hi"]["measured"] = []
    write_text(path, json.dumps(tuned))
    with pytest.raises(ClasError, match=r"cannot be drawn"):
        write_report(copy)


def test_strengths_of_few_items_have_no_interval(copy: Path) -> None:
    text = Page(write_report(copy)[0].read_text(encoding="utf-8")).text
    assert "Shaded: 95" in text
    assert "No interval where" not in text
    for path in (copy / "tune").glob("*/tuned.json"):
        shutil.rmtree(path.parent / "masks")
        tuned = json.loads(path.read_text())
        for one in (one for by_language in tuned.values() for one in by_language.values()):
            for tried in (one["chosen"], one["best"], *one["measured"]):
                tried.update(low=None, high=None)
        write_text(path, json.dumps(tuned))
    text = Page(write_report(copy)[0].read_text(encoding="utf-8")).text
    assert "Shaded: 95" not in text
    assert text.count("No interval where there are fewer than 6 items or clusters.") == 2  # under the strengths of each family


@pytest.mark.parametrize(
    "name",
    [
        *("tables/clas_xquad.json", "analysis/xquad/geometry.json", "analysis/stability.json", "analysis/xnli/causes.json"),
        *("stages/tune.json", "results/hf/clas_xquad_hi/model/results_2026-11-23T10-00-00.json"),
        *("tune/xquad/masks/clas_config.json", "tables/clas_xnli-against-uniform.json"),
    ],
)
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b'{"a": "\\ud800"}', b"\xff\xfe", b"[" * 100_000])
def test_damaged_files_are_named(copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    with pytest.raises(ClasError, match=re.escape(Path(name).name)):
        write_report(copy)
    assert not (copy / "report.html").exists()


def test_tables_against_controls_are_no_main_tables(study: Path) -> None:
    sources = read_study(study)
    assert sorted(sources.comparisons) == ["clas_xnli", "clas_xquad"]
    assert sorted((one.family, one.baseline) for one in sources.against) == [
        (family, control) for family in ("clas_xnli", "clas_xquad") for control in ("random", "uniform")
    ]
    page = Page(write_report(study, study / "other.html")[0].read_text())
    assert "against uniform" not in page.text
    assert page.text.count("How far clas is above each control") == 2


def test_headings_by_part_only_if_there_are_several(study: Path, tmp_path: Path) -> None:
    one = write_study(tmp_path / "one", 3, parts=1)
    for folder, headings in ((study, ["xnli", "xquad"]), (one, [])):
        source = write_report(folder, tmp_path / "a.html")[0].read_text()
        for section in ("run", "neurons", "geometry"):
            html = source.split(f'<section id="{section}">')[1].split("</section>")[0]
            found = [text for text in re.findall("<h3>(.*?)</h3>", html) if text in ("xquad", "xnli")]
            assert found == headings, section


def test_masks_of_variants_are_no_parts(copy: Path) -> None:
    shutil.copytree(copy / "masks" / "xquad", copy / "masks" / "xquad-lape")
    assert "xquad-lape" in read_study(copy).masks
    write_text(copy / "recipe.yaml", "parts: {xquad: {}, xnli: {}}\nvariants: {lape: {specific: lape}}\n")
    assert sorted(read_study(copy).masks) == ["xnli", "xquad"]
    write_text(copy / "recipe.yaml", "parts: {xquad: {}, xquad-lape: {}}\nvariants: {lape: {specific: lape}}\n")
    assert "xquad-lape" in read_study(copy).masks


def test_a_card_says_what_each_part_has(study: Path) -> None:
    source = write_report(study, study / "cards.html")[0].read_text()
    cards = {card.split("</h3>")[0]: Page(card).text for card in source.split("<article>")[1:]}
    assert list(read_study(study).masks["xnli"].languages) == CODES[:3]
    last = next(text for title, text in cards.items() if f">{CODES[3]}<" in title)
    assert "Not in clas_xnli and the masks of xnli." in last
    assert "5000 tokens of xquad" in last
    hindi = next(text for title, text in cards.items() if ">hi<" in title)
    assert "5000 tokens of xnli; 5000 tokens of xquad" in hindi
    assert "(400 requests)" in hindi  # of both parts


def test_a_run_is_merged_from_its_tasks(tmp_path: Path) -> None:
    masks = make_masks(["en", "hi", "de"], 8, np.random.default_rng(0))
    base = make_steering([], masks)

    def write(name: str, task: str, **steering: object) -> None:
        content = {"config": {"clas": {**base, **steering}}, "results": {task: {}}}
        write_text(tmp_path / "results" / "clas" / name, json.dumps(content))

    told = {"requests": 9, "recognized": {"doc": 9}}
    write("a_hi/m/results_2026-01-01T00-00-00.json", "a_hi", languages={"hi": told}, tuned={"a": {"hi": {}}}, alpha=1)
    write("b_hi/m/results_2026-01-02T00-00-00.json", "b_hi", languages={"hi": told}, tuned={"b": {"hi": {}}}, alpha=2)
    write("b_hi/m/results_2026-01-01T00-00-00.json", "b_hi", languages={"hi": {"requests": 1, "recognized": {"doc": 1}}})
    write("b_de/m/results_2026-01-01T00-00-00.json", "b_de", languages={"de": told}, left_alone={"de": "alpha is 0"})
    found = read_study(tmp_path).runs["clas"]
    assert found["languages"] == {"hi": {"requests": 18, "recognized": {"doc": 18}}, "de": told}
    assert found["left_alone"] == {"en": "anchor", "de": "alpha is 0"}
    assert found["tuned"] == {"a": {"hi": {}}, "b": {"hi": {}}}
    assert found["alpha"] == 2
    assert found["layers"] == list(masks.bridge_layers)
    assert "witness" not in found
    write("c_hi/m/results_2026-01-03T00-00-00.json", "c_hi", layers=[1])
    assert "each part" in read_study(tmp_path).runs["clas"]["layers"]


def test_the_witnesses_of_a_runs_files_are_added_up_and_shown(tmp_path: Path) -> None:
    base = make_steering([], make_masks(["en", "hi", "de"], 8, np.random.default_rng(0)))

    def write(task: str, languages: dict[str, Any], **witness: dict[str, Any]) -> None:
        content = {
            "config": {
                "clas": {
                    **base,
                    "languages": languages,
                    "witness": {key.replace("_", " "): one for key, one in witness.items()},
                }
            },
            "results": {task: {}},
        }
        write_text(tmp_path / "results" / "clas" / task / "results_2026-01-01T00-00-00.json", json.dumps(content))

    def seen(requests: int, positions: int | dict[str, int], layers: list[int], digest: str = "a") -> dict[str, Any]:
        return {"requests": requests, "positions": positions, "layers": layers, "factors_hash": digest, "check": {}}

    told = {"requests": 9, "recognized": {"doc": 9}, "from_cache": 2, "steered_as": "quy"}
    write("a_hi", {"qu": told}, hi=seen(1200, 4000, [3, 4]), de=seen(2, 7, [3]), hi_in_a=seen(10, 50, [3]))
    write("b_hi", {"qu": told}, hi=seen(30, {"4": 200, "5": 100}, [4, 5], "b"), hi_in_b=seen(5, {"3": 8, "4": 9}, [3, 4]))
    write("c_hi", {"qu": told}, de=seen(3, 3, [3]))
    found = read_study(tmp_path).runs["clas"]
    assert found["languages"] == {"qu": {"requests": 27, "recognized": {"doc": 27}, "from_cache": 6, "steered_as": "quy"}}
    hindi = {"requests": 1230, "positions": {"3": 4000, "4": 4200, "5": 100}, "layers": [3, 4, 5], "check": {}}
    assert found["witness"]["hi"] == hindi
    assert found["witness"]["de"] == seen(5, 10, [3])
    assert witnessed(found) == {"hi": (1230 + 10 + 5, 4200 + 50 + 9), "de": (5, 10)}
    (table,) = (one for one in run_section(read_study(tmp_path)).blocks if isinstance(one, Table) and one.head[0] == "language")
    assert table.head == ["language", "clas"]
    cells = {row[0].text: (row[1].text, row[1].detail) for row in table.rows}
    assert cells == {"German (de)": ("5", "10 positions"), "Hindi (hi)": ("1,245", "4,259 positions")}


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
        Row(label="a", kind="method", cells={"hi": LanguageCell(score=float("nan"), gain=float("nan"), p_holm=float("nan"))}),
        Row(label="b", kind="control", cells={"xx-what": LanguageCell(score=1.0)}, gain=float("inf"), low=0.1),
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
        (0.1, 0.9, "On XNLI (accuracy), CLAS gains 0.50 points (0.10 to 0.90), tested against no control"),
        (-0.9, -0.1, "CLAS loses 0.50 points (0.10 to 0.90)"),
        (-0.1, 0.9, "CLAS is not shown to help or to hurt (+0.50 points, \u22120.10 to +0.90)"),
        (0.0, 0.9, "CLAS is not shown to help or to hurt"),
        (None, None, "CLAS has no interval of its average gain"),
    ],
)
def test_a_tasks_sentence_follows_the_interval(low: float | None, high: float | None, words: str) -> None:
    gain = -0.5 if (high or 0) < 0 else 0.5
    assert words in task_sentence(comparison(gain, low, high), [])


def test_where_lower_is_better_a_gain_is_a_loss() -> None:
    made = comparison(0.5, 0.1, 0.9, uniform=0.75).model_copy(update={"higher_is_better": False})
    assert "(lower is better), CLAS loses 0.50 points (0.10 to 0.90)" in task_sentence(made, [])
    assert "ahead of it by 0.25" in " ".join(against_controls(made))


def test_nothing_changed_is_said_so() -> None:
    assert "CLAS changes nothing" in task_sentence(comparison(0.0, 0.0, 0.0), [])


def with_leads(made: Comparison, **leads: float) -> list[Comparison]:
    """Tests of CLAS against each control, with an interval of 0.5 to both sides of its lead."""
    tested = [rebased(made, label) for label in leads]
    for one in tested:
        row = primary_of(one)
        assert row is not None
        lead = leads[one.baseline]
        row.gain, row.low, row.high = lead, lead - 0.5, lead + 0.5
    return tested


@pytest.mark.parametrize(
    ("gains", "leads", "words"),
    [
        (
            (1.0, 0.5, 1.5),
            (0.9, 0.7),
            "CLAS gained 1.00 points (0.50 to 1.50) on XNLI over the unsteered model, and beat the uniform",
        ),
        ((1.0, 0.5, 1.5), (0.9, 0.2), "but is not shown to beat the random masks control"),
        ((0.1, -0.4, 0.6), (0.1, -0.8), "The random masks control beat CLAS by 0.80 points (0.30 to 1.30) on XNLI"),
        ((-1.0, -1.5, -0.5), (0.1, 0.1), "CLAS lost 1.00 points (0.50 to 1.50) on XNLI over the unsteered model"),
        ((0.1, -0.4, 0.6), (0.1, 0.1), "No method is shown to help or to hurt: the 95"),
    ],
)
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_headline_is_the_clearest_statement_whichever_way_it_points(
    gains: tuple[float, float, float], leads: tuple[float, float], words: str, higher_is_better: bool
) -> None:
    turn = 1 if higher_is_better else -1
    gain, *ends = (turn * one for one in gains)
    low, high = sorted(ends)
    made = comparison(gain, low, high).model_copy(update={"higher_is_better": higher_is_better})
    for row in made.rows[2:]:
        row.gain, row.low, row.high = 0.1, -0.4, 0.6
    sentence, _, about = first_minute({"one": made}, with_leads(made, uniform=turn * leads[0], random=turn * leads[1]))
    assert words in sentence
    assert about is made


def test_the_headline_says_from_how_many_comparisons_it_was_picked() -> None:
    clear, unclear = comparison(1.0, 0.8, 1.2), comparison(0.5, 0.02, 0.98).model_copy(update={"family": "clas_xquad"})
    for one in (clear, unclear):
        for row in one.rows[2:]:
            row.gain, row.low, row.high = 0.1, -0.4, 0.6
    sentence, picked_from, about = first_minute({"a": unclear, "b": clear}, [])
    assert about is clear
    assert picked_from == "This was picked from 6 comparisons of averages; adjusted for that many, p\u00a0<\u00a00.001."
    sentence, picked_from, _ = first_minute({"a": unclear}, [])
    assert re.search(r"adjusted for that many, p\u00a0=\u00a00\.1\d\d, so it may be chance\.$", picked_from)
    assert sentence.endswith("was tested against no control.")
    assert "nothing can be said" in first_minute({"a": comparison(0.5, None, None).model_copy(update={"rows": []})}, [])[0]


def test_a_control_of_other_masks_or_strengths_is_none_of_a_row() -> None:
    made = comparison(0.1, -0.4, 0.6)
    of_row = {"method": "clas", "masks_hash": "a", "alpha": 1.0, "layers": [2]}
    row = made.rows[1].model_copy(update={"steering": of_row})
    for steering, own in (
        ({"masks_hash": "a", "alpha": 1.0, "layers": [2]}, True),
        ({"masks_hash": "b", "alpha": 1.0, "layers": [2]}, False),
        ({"masks_hash": "a", "alpha": 2.0, "layers": [2]}, False),
        ({"masks_hash": "a", "alpha": 1.0, "layers": [3]}, False),
    ):
        control = made.rows[2].model_copy(update={"steering": {"method": "uniform", **steering}})
        assert bool(own_controls(made.model_copy(update={"rows": [row, control]}), row)) == own


def test_a_control_that_beats_several_methods_is_one_statement_with_the_judged_one_first() -> None:
    made = comparison(0.1, -0.4, 0.6)
    for row in made.rows[2:]:
        row.gain, row.low, row.high = 0.1, -0.4, 0.6
    # A method that the control does not stand beside may be of another strength, so that being behind it means nothing.
    others = [
        made.rows[1].model_copy(update={"label": label, "steering": {"method": method}})
        for label, method in (("clas own", "clas"), ("int-mu", "int-mu"))
    ]
    made = made.model_copy(update={"rows": [*made.rows, *others]})
    tested = with_leads(made, random=-0.84)
    for row in tested[0].rows:
        if row.label in ("clas own", "int-mu"):
            row.gain, row.low, row.high = -1.74, -2.24, -1.24
    sentence, _, _ = first_minute({"one": made}, tested)
    assert sentence == (
        "The random masks control beat CLAS by 0.84 points (0.34 to 1.34) and CLAS own by 1.74 points (1.24 to 2.24) on XNLI."
    )
    assert task_sentence(made, tested) == (
        "On XNLI (accuracy), CLAS is not shown to help or to hurt (+0.10 points, \u22120.40 to +0.60), and is behind the "
        "random masks control by 0.84 points (0.34 to 1.34); no gain or loss is shown for CLAS own and Int-mu."
    )
    smallest = smallest_seen([made])
    assert smallest == "The smallest average gain that this study would have found in 80\u00a0% of cases: 0.71 points on XNLI."


def test_languages_tuned_to_0_are_not_steered() -> None:
    made = comparison(0.5, 0.1, 0.9)
    row = primary_of(made)
    assert row is not None
    assert steered_languages(made) == ["hi", "de"]
    row.steering["tuned"] = {"clas_xnli": {"hi": {"alpha": 0.0}, "de": {"alpha": -1.0}}}
    assert steered_languages(made) == ["de"]
    assert steered_languages(made, made.rows[2]) == ["hi", "de"]
    assert verdict(made, "hi") == "not steered (tuned to 0)"
    assert told_by_language(made, row).startswith("Of 1 steered language, ")


def test_the_first_screen_has_the_picture_of_the_headlines_task(study: Path, tmp_path: Path) -> None:
    source = write_report(study, tmp_path / "a.html")[0].read_text(encoding="utf-8")
    summary = source.split('<section id="summary">')[1].split("</section>")[0]
    sources = read_study(study)
    _, _, about = first_minute(sources.comparisons, sources.against)
    assert about is not None
    labels = re.findall(r'aria-label="(\w[\w-]*), gain in points: mean', summary)
    assert labels == ["clas", "int-mu", "uniform", "random"]  # controls beside
    assert len(re.findall(", gain in points: mean", source)) == 2 * 4  # those of the other task stand with its results
    assert summary.count("<li>") == len(sources.comparisons) + 1


def test_controls_are_compared_in_words() -> None:
    behind = " ".join(against_controls(comparison(0.5, 0.1, 0.9, uniform=0.75)))
    assert "behind it by 0.25" in behind
    assert "ahead of it by 1.50" in behind
    assert "nothing shows that what it knows of neurons and languages matters" in behind
    assert "was not tested" in behind
    ahead = " ".join(against_controls(comparison(0.5, 0.1, 0.9, uniform=0.25)))
    assert "not shown" not in ahead
    alone = comparison(0.5, 0.1, 0.9)
    alone = alone.model_copy(update={"rows": alone.rows[:3]})
    assert "No control with random masks" in " ".join(against_controls(alone))


@pytest.mark.parametrize(
    ("lead", "words"),
    [
        (0.75, "clas is ahead of it by 0.75 (interval of the difference +0.25 to +1.25)"),
        (0.25, "clas is ahead of it by 0.25, which may be chance (interval of the difference \u22120.25 to +0.75)"),
        (-0.75, "clas is behind it by 0.75 (interval of the difference \u22121.25 to \u22120.25)"),
    ],
)
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_controls_that_were_tested_are_told_by_their_tests(lead: float, words: str, higher_is_better: bool) -> None:
    first = comparison(0.5, 0.1, 0.9).model_copy(update={"higher_is_better": higher_is_better})
    tested = [rebased(first, label) for label in ("uniform", "random")]
    for one in tested:
        row = primary_of(one)
        assert row is not None
        row.gain, row.low, row.high = lead, lead - 0.5, lead + 0.5
    sentences = against_controls(first, tested)
    if not higher_is_better:
        words = words.replace("ahead of", "behind") if lead > 0 else words.replace("behind", "ahead of")
    assert sum(words in sentence for sentence in sentences) == 2
    assert "was not tested" not in " ".join(sentences)
    assert "(exact McNemar, Holm)" in sentences[0]
    shown = "nothing shows that" not in " ".join(sentences)
    assert shown == ((lead if higher_is_better else -lead) == 0.75)
    assert "was not tested" in " ".join(against_controls(first, tested[:1]))
    other = [one.model_copy(update={"family": "else"}) for one in tested]
    assert "was not tested" in " ".join(against_controls(first, other))


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
        row.cells["hi"] = LanguageCell(score=30 + (gain or 0), gain=gain, p_holm=p_holm)
        row.cells["de"] = LanguageCell(score=30, gain=0.0 if row.kind != "baseline" else None)
    assert verdict(made, "hi") == words
    assert verdict(made, "en") == "anchor, never steered"
    row = primary_of(made)
    assert row is not None
    wins = int(clas > 0)
    assert f"{wins} did better than hf, {int(clas < 0)} worse" in told_by_language(made, row)
    assert f"in {int(words.startswith('beats all'))} of 2 steered languages" in beaten(made)


@pytest.mark.parametrize(
    "told", [{"left_alone": {"de in clas_xnli": "not tuned"}}, {"tuned": {"clas_xnli": {"de": {"alpha": 0.0}}}}]
)
def test_languages_that_were_left_alone_are_no_steered_ones(told: dict[str, Any]) -> None:
    made = comparison(0.5, 0.1, 0.9)
    for row, gain in zip(made.rows, (None, 1.0, 0.5, 0.5), strict=True):
        row.cells["hi"] = LanguageCell(score=30 + (gain or 0), gain=gain)
        row.cells["de"] = LanguageCell(score=30, gain=None if gain is None else 0.0)
    row = primary_of(made)
    assert row is not None
    assert told_by_language(made, row).startswith("Of 2 steered languages, 1 did better than hf, 0 worse and 1 the same")
    row.steering = {**row.steering, **told}
    assert steered_languages(made) == ["hi"]
    assert told_by_language(made, row).startswith("Of 1 steered language, 1 did better than hf, 0 worse and 0 the same")
    assert "in 1 of 1 steered language" in beaten(made)
    assert verdict(made, "de") in ("not steered (not tuned)", "not steered (tuned to 0)")


def test_words() -> None:
    assert [number_text(None), number_text(float("nan")), number_text(-1.005, 1)] == ["\u2013", "\u2013", "\u22121.0"]
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


def test_a_picture_in_the_report_looks_as_it_did_and_has_fewer_bytes(tmp_path: Path) -> None:
    from PIL import Image

    study = write_study(tmp_path / "study", 15, parts=1)
    path = study / "analysis" / "xquad" / "geometry.png"
    found = re.search(r"base64,([^\"]*)", embedded(path, "x"))
    assert found is not None
    content = base64.b64decode(found[1])
    assert len(content) < 0.5 * path.stat().st_size
    with Image.open(path) as before, Image.open(io.BytesIO(content)) as after:
        assert before.size == after.size
        difference = np.abs(np.asarray(before.convert("RGB"), dtype=int) - np.asarray(after.convert("RGB"), dtype=int))
    assert difference.max() < 32  # of 255


def test_there_are_languages_enough_for_the_browser() -> None:
    assert len(CODES) == len(set(CODES)) == 40
