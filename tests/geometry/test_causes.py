"""Candidate causes beside gains: against loops over the masks, and the command on a table and a geometry."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from small_models import Run, make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import ClasError, MaskSet
from lm_eval_clas.comparing.rows import Comparison, LanguageCell, Row
from lm_eval_clas.geometry.causes import Causes, find_causes, specific_share, tokens_per_character
from lm_eval_clas.geometry.geometry_run import run_geometry
from lm_eval_clas.texts.corpora import ParallelTexts

SCORES = {"en": (50.0, 0.0), "hi": (20.0, 3.0), "de": (40.0, 1.0), "zh": (30.0, -2.0), "sw": (10.0, 9.0)}


@pytest.fixture
def table(masks: MaskSet) -> Comparison:
    steering = {"method": "clas", "alpha": 1.0, "masks_hash": masks.hash, "anchor": "en", "layers": list(masks.bridge_layers)}
    return Comparison(
        family="clas_mini_qa",
        tasks={language: f"clas_mini_qa_{language}" for language in SCORES},
        metric="f1",
        unit="points",
        test="permutation",
        baseline="hf",
        languages=list(SCORES),
        anchor="en",
        average_languages=list(SCORES),
        rows=[
            Row(label="hf", kind="baseline", cells={one: LanguageCell(score=score) for one, (score, _) in SCORES.items()}),
            Row(
                label="clas",
                kind="method",
                steering={**steering, "beta": 0.4, "gamma": 0.2, "languages": {one: {} for one in SCORES}},
                cells={one: LanguageCell(score=score + gain, gain=gain) for one, (score, gain) in SCORES.items()},
            ),
        ],
    )


def test_causes_equal_loops_over_the_masks(table: Comparison, masks: MaskSet) -> None:
    found = find_causes(table, "clas", masks, {"hi": 1.5, "de": 1.1})
    assert set(found.rows) == {"hi", "de", "zh"}  # neither the anchor nor a language that the masks do not have
    for language, row in found.rows.items():
        score, gain = SCORES[language]
        assert (row["baseline score"], row["gain"]) == (score, gain)
        active = specific = both = either = 0
        for layer in masks.bridge_layers:
            for neuron in range(masks.active.shape[2]):
                own = masks.active[masks.index(language), layer, neuron]
                anchor = masks.active[masks.index("en"), layer, neuron]
                active += own
                specific += own and masks.active[:, layer, neuron].sum() == 1
                both += own and anchor
                either += own or anchor
        assert row["specific share"] == pytest.approx(specific / active) == specific_share(masks, language, masks.bridge_layers)
        assert row["overlap with anchor"] == pytest.approx(both / either)
    assert found.left_out == {"sw": "not in the masks"}
    assert found.rows["hi"]["tokens per character"] == 1.5
    assert "tokens per character" not in found.rows["zh"]
    by_cause = {one.cause: one for one in found.correlations}
    assert [one.n for one in found.correlations] == [3, 2, 3, 3]
    assert by_cause["baseline score"].spearman == pytest.approx(-0.5)
    assert ["noise alone" in one for one in by_cause["baseline score"].warnings] == [True, False]
    assert all("of 3" in one.warnings[-1] or "Of 2" in one.warnings[-1] for one in found.correlations)
    few = by_cause["baseline score"].warnings[1]
    assert {sentence: causes for sentence, causes in found.warned.items() if "noise" not in sentence} == {
        few: ["baseline score", "specific share", "overlap with anchor"],
        by_cause["tokens per character"].warnings[0]: ["tokens per character"],
    }


def test_tokens_per_character(tokenizer: PreTrainedTokenizerFast) -> None:
    """The test's tokenizer writes one token for each byte; BOS is none of the text's."""
    texts = ParallelTexts("x", ("1", "2"), {"en": ("ab", "c"), "hi": ("नम", "a"), "zh": ("中", "文")})
    assert tokens_per_character(tokenizer, texts) == pytest.approx({"en": 1, "hi": 7 / 3, "zh": 3})


def test_wrong_rows_are_refused(table: Comparison, masks: MaskSet) -> None:
    with pytest.raises(ClasError, match="no row 'other', only hf, clas"):
        find_causes(table, "other", masks, {})
    with pytest.raises(ClasError, match="Row 'hf' was steered with no masks, so that they cannot be why it gains"):
        find_causes(table, "hf", masks, {})
    steering = table.rows[1].steering
    table.rows.append(table.rows[0].model_copy(update={"label": "alone", "steering": steering}))
    with pytest.raises(ClasError, match="Row 'alone' has no gains"):
        find_causes(table, "alone", masks, {})
    for wrong, message in (
        ({"masks_hash": "0123456789abcdef"}, "was steered with masks 0123456789abcdef, and these are"),
        ({"method": "off"}, "was steered with no masks"),
        ({"layers": [2, 99]}, r"was steered in layers \[2, 99\], which the masks do not have"),
        ({"tuned": {"clas_mini_qa": [1]}}, "tells of its steering what no run does"),
        ({"alpha": [1]}, "tells of its steering what no run does"),
    ):
        table.rows[1].steering = {**steering, **wrong}
        with pytest.raises(ClasError, match=message):
            find_causes(table, "clas", masks, {})


def test_languages_that_were_not_steered_are_left_out_and_told(table: Comparison, masks: MaskSet) -> None:
    tuned = {language: {"alpha": alpha, "layers": [2, 3]} for language, alpha in {"hi": -2.0, "de": 0.0, "zh": 1.0}.items()}
    steering = table.rows[1].steering
    cases: list[tuple[dict[str, Any], dict[str, str]]] = [
        ({"alpha": "tuned", "tuned": {"clas_mini_qa": tuned}}, {"de": "tuned to 0"}),
        ({"alpha": "tuned", "tuned": {"other": tuned}}, dict.fromkeys(("de", "hi", "zh"), "no strength is told")),
        ({"alpha": {"hi": 1.0, "default": 0.0}}, {"de": "alpha is 0", "zh": "alpha is 0"}),
        ({"left_alone": {"hi": "no neurons to steer", "zh in clas_mini_qa": "not tuned", "de in clas_mini_nli": "not tuned"}},
         {"hi": "no neurons to steer", "zh": "not tuned"}),
        ({"languages": {"en": {}, "hi": {}, "de": {}}}, {"zh": "not recognised"}),
    ]  # fmt: skip
    for told, left_out in cases:
        table.rows[1].steering = {**steering, **told}
        found = find_causes(table, "clas", masks, {})
        assert found.left_out == {**left_out, "sw": "not in the masks"}
        assert set(found.rows) == {"hi", "de", "zh"} - set(left_out)
        assert {one.n for one in found.correlations if one.cause != "tokens per character"} == {len(found.rows)}
    table.rows[1].steering = {**steering, **cases[0][0]}  # in the layers of the run, and not those of the masks
    found = find_causes(table, "clas", masks, {})
    assert found.rows["hi"]["specific share"] == specific_share(masks, "hi", [2, 3])
    assert specific_share(masks, "hi", [2, 3]) != specific_share(masks, "hi", masks.bridge_layers)


def in_columns(table: Comparison, masks: MaskSet, **scores: tuple[float, float]) -> Comparison:
    """The table with other columns, each with its score and gain."""
    for row, gained in zip(table.rows, (0, 1), strict=True):
        row.cells = {
            one.replace("_", "-"): LanguageCell(score=score + gained * gain, gain=gain if gained else None)
            for one, (score, gain) in scores.items()
        }
    table.rows[1].steering = {**(table.rows[1].steering or {}), "languages": {one: {} for one in masks.languages}}
    return table


def test_columns_of_one_language_count_as_one(
    clas: Run,
    table: Comparison,
    masks: MaskSet,
    tokenizer: PreTrainedTokenizerFast,
    checkpoint: Path,
    texts: ParallelTexts,
    tmp_path: Path,
) -> None:
    """`hi-Deva` beside `hi-Latn`: both have a row, and correlations are those of their mean."""
    geometry = run_geometry(make_model(), tokenizer, texts, masks, tmp_path, max_tokens=30)
    others = {"de": (40.0, 1.0), "zh": (30.0, -2.0)}
    fertility = {"hi": 2.5, "de": 1.1, "zh": 3.0}
    one = find_causes(in_columns(table, masks, hi=(20.0, 3.0), **others), "clas", masks, fertility, geometry)
    two = find_causes(
        in_columns(table, masks, hi_Deva=(10.0, 5.0), hi_Latn=(30.0, 1.0), **others), "clas", masks, fertility, geometry
    )
    assert [found.n for found in two.correlations] == [3] * len(two.correlations)
    assert two.correlations == one.correlations
    assert set(two.rows) == {"hi-Deva", "hi-Latn", "de", "zh"}
    assert two.rows["hi-Latn"]["gain"] == 1.0
    assert (one.averaged, two.averaged) == ([], [["hi-Deva", "hi-Latn"]])
    (tmp_path / "table.json").write_text(table.model_dump_json())
    code, text, error = clas(
        "causes", tmp_path / "table.json", "--masks", masks.save(tmp_path / "masks"), "--model", checkpoint, "--run", "clas"
    )
    assert code == 0, error
    assert "Columns of one language, whose mean is in the correlations: hi-Deva, hi-Latn." in " ".join(text.split())


def test_a_column_meets_its_macrolanguage(table: Comparison, masks: MaskSet) -> None:
    """A task in Quechua that was steered as the masks' Cusco Quechua is no language that the masks do not have."""
    languages = ["quy" if one == "hi" else one for one in masks.languages]
    cusco = MaskSet(masks.config.model_copy(update={"languages": languages}), masks.active)
    in_columns(table, cusco, qu=(20.0, 3.0), de=(40.0, 1.0), zh=(30.0, -2.0))
    told = {**(table.rows[1].steering or {}), "masks_hash": cusco.hash, "languages": {"qu": {}, "de": {}, "zh": {}}}
    table.rows[1].steering = told
    found = find_causes(table, "clas", cusco, {"quy": 1.5})
    assert (set(found.rows), found.left_out) == ({"qu", "de", "zh"}, {})
    assert found.rows["qu"]["specific share"] == specific_share(masks, "hi", masks.bridge_layers)
    assert found.rows["qu"]["tokens per character"] == 1.5
    table.rows[1].steering = {**told, "alpha": {"quy": 0.0, "default": 1.0}}
    assert find_causes(table, "clas", cusco, {}).left_out == {"qu": "alpha is 0"}
    table.rows[1].steering = {**told, "left_alone": {"quy in clas_mini_qa": "not tuned"}}
    assert find_causes(table, "clas", cusco, {}).left_out == {"qu": "not tuned"}


def test_causes_on_the_command_line(
    clas: Run,
    table: Comparison,
    masks: MaskSet,
    checkpoint: Path,
    tokenizer: PreTrainedTokenizerFast,
    texts: ParallelTexts,
    tmp_path: Path,
) -> None:
    (tmp_path / "table.json").write_text(table.model_dump_json())
    run_geometry(make_model(), tokenizer, texts, masks, tmp_path, max_tokens=30)
    command = (
        "causes", tmp_path / "table.json", "--masks", masks.save(tmp_path / "masks"), "--model", checkpoint, "--run", "clas",
        "--geometry", tmp_path / "geometry.json", "--out", tmp_path / "causes.json",
    )  # fmt: skip
    code, text, error = clas(*command)
    assert code == 0, error
    found = Causes.model_validate_json((tmp_path / "causes.json").read_bytes())
    assert (found.family, found.run, len(found.correlations)) == ("clas_mini_qa", "clas", 4 + 12)
    assert found.rows["hi"]["tokens per character"] > found.rows["de"]["tokens per character"] > 1
    assert "specific share" in text
    assert "Few languages: of 3" in " ".join(error.split())
    (tmp_path / "geometry.json").write_text(table.model_dump_json())
    code, _, error = clas(*command, "--force")
    assert code == 2
    assert "something else: model: Field required; make a geometry with 'clas geometry'" in " ".join(error.split())


def test_geometry_of_other_masks_is_refused(
    table: Comparison, masks: MaskSet, tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts, tmp_path: Path
) -> None:
    geometry = run_geometry(make_model(), tokenizer, texts, masks, tmp_path, max_tokens=20)
    with pytest.raises(ClasError, match="The geometry is of masks other"):
        find_causes(table, "clas", masks, {}, geometry.model_copy(update={"masks_hash": "other"}))
    assert find_causes(table, "clas", masks, {}, geometry).correlations[-1].n == 3
    for name, value in {"alpha": 2.0, "method": "uniform", "beta": 0.5, "gamma": 0.0, "layers": [2]}.items():
        other = geometry.model_copy(update={"steering": {**geometry.steering, name: value}})
        with pytest.raises(
            ClasError, match=rf"In 'hi' the run has {name} .*, and the geometry {re.escape(str(value))}; measure"
        ):
            find_causes(table, "clas", masks, {}, other)
    told = table.rows[1].steering
    patterns = {"geometry": "*.mlp.down_proj", "run": "*.other"}
    measured = run_geometry(make_model(), tokenizer, texts, masks, tmp_path, max_tokens=20, projection=patterns["geometry"])
    table.rows[1].steering = {**told, "projection": patterns["run"]}
    for one in (geometry, measured):
        with pytest.raises(ClasError, match=r"In 'hi' the run has projection \*\.other, and the geometry (None|\*\.mlp)"):
            find_causes(table, "clas", masks, {}, one)
    table.rows[1].steering = {**told, "projection": patterns["geometry"]}
    assert find_causes(table, "clas", masks, {}, measured).rows
    table.rows[1].steering = told
    by_language = geometry.model_copy(update={"steering": {**geometry.steering, "alpha": {"default": 1.0}}})
    assert find_causes(table, "clas", masks, {}, by_language).rows
