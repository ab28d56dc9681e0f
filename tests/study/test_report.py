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
from judged_comparisons import comparison
from synthetic_study import CODES, make_geometry, make_masks, make_steering, rebased, write_study

from lm_eval_clas import ClasError
from lm_eval_clas.comparing.rows import Comparison, LanguageCell, Row
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.drawing.web_page import embedded
from lm_eval_clas.study.report import verdicts
from lm_eval_clas.study.report.analysis_sections import geometry_section
from lm_eval_clas.study.report.rendering import write_report
from lm_eval_clas.study.report.run_sections import run_section
from lm_eval_clas.study.report.score_sections import title_of
from lm_eval_clas.study.report.sources import read_study
from lm_eval_clas.study.report.statements import first_minute
from lm_eval_clas.study.report.verdicts import (
    against_controls,
    beaten,
    own_controls,
    primary_of,
    steered_languages,
    told_by_language,
    verdict,
)
from lm_eval_clas.study.report.view import Table, Text
from lm_eval_clas.study.report.wording import NONE, drawable, interval, listed, named, number_text, signed, witnessed

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


@pytest.fixture(scope="module")
def whole(study: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Its report, with all pictures, and what was left out."""
    return write_report(study, tmp_path_factory.mktemp("report") / "deep" / "a.html")


def test_a_whole_study(whole: tuple[Path, list[str]], study: Path) -> None:
    path, left_out = whole
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


def test_writing_twice_gives_the_same_page(whole: tuple[Path, list[str]], study: Path, tmp_path: Path) -> None:
    assert write_report(study, tmp_path / "b.html")[0].read_bytes() == whole[0].read_bytes()


def test_pictures_say_numbers(whole: tuple[Path, list[str]]) -> None:
    page = Page(whole[0].read_text(encoding="utf-8"))
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


@pytest.mark.usefixtures("sketched")
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


@pytest.mark.usefixtures("sketched")
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


@pytest.mark.usefixtures("sketched")
def test_strengths_of_variants_of_the_masks_stand_beside(copy: Path) -> None:
    assert "clas, lape" not in Page(write_report(copy)[0].read_text(encoding="utf-8")).text
    tuned = copy / "tune" / "xnli" / "tuned.json"
    variant = copy / "tune" / "xnli" / "variants" / "lape" / "tuned.json"
    write_text(variant, tuned.read_text().replace('"clas_xnli"', '"of_the_variant"'))
    text = Page(write_report(copy)[0].read_text(encoding="utf-8")).text
    assert "clas, lape" in text
    assert "Strengths of of_the_variant" in text


@pytest.mark.usefixtures("sketched")
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


@pytest.mark.usefixtures("sketched")
def test_tables_against_controls_are_no_main_tables(study: Path) -> None:
    sources = read_study(study)
    assert sorted(sources.comparisons) == ["clas_xnli", "clas_xquad"]
    assert sorted((one.family, one.baseline) for one in sources.against) == [
        (family, control) for family in ("clas_xnli", "clas_xquad") for control in ("random", "uniform")
    ]
    page = Page(write_report(study, study / "other.html")[0].read_text())
    assert "against uniform" not in page.text
    assert page.text.count("How far clas is above each control") == 2


@pytest.mark.usefixtures("sketched")
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


@pytest.mark.usefixtures("sketched")
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


def test_what_a_run_steered_is_told_of_each_family_where_they_differ(tmp_path: Path) -> None:
    """A fixed strength of one part says nothing of the others, whichever was evaluated last."""
    base = make_steering([], make_masks(["en", "hi"], 8, np.random.default_rng(0)))

    def write(task: str, day: int, **steering: object) -> None:
        content = {"config": {"clas": {**base, **steering}}, "results": {task: {"acc,none": 0.5}}}
        write_text(tmp_path / "results" / "clas" / task / f"results_2026-01-0{day}T00-00-00.json", json.dumps(content))

    write("clas_xquad_hi", 1)
    write("clas_xquad_gold_hi", 1)
    (table,) = (one for one in run_section(read_study(tmp_path)).blocks if isinstance(one, Table))
    whole = "method clas; alpha tuned; beta 0.4; gamma 0.2; layers 3\u20135; anchor en"
    assert [(row[0].text, row[0].detail, row[1].text) for row in table.rows] == [("clas", "", whole)]
    write("clas_open_force_hi", 2, alpha=-2.0)
    write("clas_xnli_gold_dev_hi", 2, layers=[1])
    (table,) = (one for one in run_section(read_study(tmp_path)).blocks if isinstance(one, Table))
    assert [(row[0].text, row[0].detail, row[1].text) for row in table.rows] == [
        ("clas", "clas_open_force", whole.replace("tuned", "\u22122, fixed")),
        ("clas", "clas_xnli_gold", whole.replace("3\u20135", "1")),
        ("clas", "clas_xquad, clas_xquad_gold", whole),
    ]


def test_what_does_not_move_as_nothing_steers_it_is_not_shown_as_steered(copy: Path) -> None:
    codes = CODES[:4]
    found = make_geometry(codes, read_study(copy).masks["xquad"], np.random.default_rng(0))
    found = found.model_copy(update={"steering": {"alpha": {codes[1]: 0.0, codes[2]: -2.0, "default": 0.5}}})
    section = geometry_section({"xquad": found}, {}, False, read_study(copy).causes)
    told = " ".join(one.text for one in section.blocks if isinstance(one, Text))
    assert "Below each language is its alpha, the strength of the run clas on clas_xquad; at 0 nothing is steered." in told
    tables = [one for one in section.blocks if isinstance(one, Table)]
    assert tables
    for table in tables:
        assert [row[0].detail for row in table.rows] == ["alpha 0", "alpha \u22122", "alpha 0.5"]
        steered = [number for number, name in enumerate(table.head) if name.endswith(", steered")]
        for row, there in zip(table.rows, (False, True, True), strict=True):
            assert {row[number].text != NONE for number in steered} == {there}
            assert all(row[number - 1].text != NONE for number in steered)


@pytest.mark.usefixtures("sketched")
def test_titles_tell_metrics_of_one_family_apart(copy: Path) -> None:
    path = copy / "tables" / "clas_xquad.json"
    main = Comparison.model_validate_json(path.read_bytes())
    other = main.model_copy(update={"metric": "f1"})
    for name, one in (("clas_xquad-f1", other), ("clas_xquad-f1-against-random", rebased(other, "random"))):
        write_text(copy / "tables" / f"{name}.json", one.model_dump_json())
    sources = read_study(copy)
    assert sorted(sources.comparisons) == ["clas_xnli", "clas_xquad", "clas_xquad-f1"]
    titles = [title_of(one, sources.comparisons) for one in sources.comparisons.values()]
    assert titles == ["clas_xnli", "clas_xquad: f1_lang", "clas_xquad: f1"]
    # A test against a control is one by a metric.
    tested = [verdicts.tests_against(one, sources.against, primary_of(one)) for one in sources.comparisons.values()]
    assert [sorted(one) for one in tested] == [["random", "uniform"], ["random", "uniform"], ["random"]]
    assert {one.metric for one in tested[2].values()} == {"f1"}
    page = Page(write_report(copy)[0].read_text(encoding="utf-8"))
    assert page.text.count("On XQuAD (F1), ") == 1
    assert "On XQuAD (SQuAD F1)" not in page.text  # it has no sentence of its own


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


@pytest.mark.usefixtures("sketched")
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


@pytest.mark.usefixtures("sketched")
def test_the_first_screen_has_the_picture_of_the_headlines_task(study: Path, tmp_path: Path) -> None:
    source = write_report(study, tmp_path / "a.html")[0].read_text(encoding="utf-8")
    summary = source.split('<section id="summary">')[1].split("</section>")[0]
    sources = read_study(study)
    _, _, about = first_minute(sources.comparisons, sources.against)
    assert about is not None
    labels = re.findall(r'aria-label="(\w[\w-]*), gain in points: mean', summary)
    assert labels == ["clas", "int-mu", "uniform", "random"]  # controls beside
    assert len(re.findall(", gain in points: mean", source)) == 2 * 4  # those of the other task stand with its results
    assert summary.count("<li>") == len(sources.comparisons) + 2  # a sentence a task, how fine it is, and how sure


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
    ("difference", "higher_is_better", "words"),
    [
        (0.75, True, "clas is ahead of it by 0.75 (interval of the lead +0.25 to +1.25)"),
        (0.25, True, "clas is ahead of it by 0.25, which may be chance (interval of the lead \u22120.25 to +0.75)"),
        (-0.75, True, "clas is behind it by 0.75 (interval of the lead \u22121.25 to \u22120.25)"),
        (-0.75, False, "clas is ahead of it by 0.75 (interval of the lead +0.25 to +1.25)"),
        (0.25, False, "clas is behind it by 0.25, which may be chance (interval of the lead \u22120.75 to +0.25)"),
    ],
)
def test_controls_that_were_tested_are_told_by_their_tests(difference: float, higher_is_better: bool, words: str) -> None:
    first = comparison(0.5, 0.1, 0.9).model_copy(update={"higher_is_better": higher_is_better})
    tested = [rebased(first, label) for label in ("uniform", "random")]
    for one in tested:
        row = primary_of(one)
        assert row is not None
        row.gain, row.low, row.high = difference, difference - 0.5, difference + 0.5
    sentences = against_controls(first, tested)
    assert sum(words in sentence for sentence in sentences) == 2
    assert "was not tested" not in " ".join(sentences)
    assert "(exact McNemar, Holm)" in sentences[0]
    shown = "nothing shows that" not in " ".join(sentences)
    assert shown == (words.startswith("clas is ahead") and "may be chance" not in words)
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

    noise = np.random.default_rng(0).integers(0, 256, (450, 900, 3), dtype=np.uint8)
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
