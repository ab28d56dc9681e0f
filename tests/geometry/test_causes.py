"""Candidate causes beside gains: against loops over the masks, and the command on a table and a geometry."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import Run, make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import ClasError, MaskSet
from lm_eval_clas.comparing.rows import Comparison, LanguageCell, Row
from lm_eval_clas.geometry.causes import Causes, find_causes, specific_shares, tokens_per_character
from lm_eval_clas.geometry.geometry_run import run_geometry
from lm_eval_clas.texts.corpora import ParallelTexts

SCORES = {"en": (50.0, 0.0), "hi": (20.0, 3.0), "de": (40.0, 1.0), "zh": (30.0, -2.0), "sw": (10.0, 9.0)}


@pytest.fixture
def table() -> Comparison:
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
        assert row["specific share"] == pytest.approx(specific / active) == specific_shares(masks)[language]
        assert row["overlap with anchor"] == pytest.approx(both / either)
    assert found.rows["hi"]["tokens per character"] == 1.5
    assert "tokens per character" not in found.rows["zh"]
    by_cause = {one.cause: one for one in found.correlations}
    assert [one.n for one in found.correlations] == [3, 2, 3, 3]
    assert by_cause["baseline score"].spearman == pytest.approx(-0.5)
    assert "noise alone" in (by_cause["baseline score"].warning or "")
    assert all(one.warning and ("of 3" in one.warning or "Of 2" in one.warning) for one in found.correlations)


def test_tokens_per_character(tokenizer: PreTrainedTokenizerFast) -> None:
    """The test's tokenizer writes one token for each byte; BOS is none of the text's."""
    texts = ParallelTexts("x", ("1", "2"), {"en": ("ab", "c"), "hi": ("नम", "a"), "zh": ("中", "文")})
    assert tokens_per_character(tokenizer, texts) == pytest.approx({"en": 1, "hi": 7 / 3, "zh": 3})


def test_wrong_rows_are_refused(table: Comparison, masks: MaskSet) -> None:
    with pytest.raises(ClasError, match="no row 'other', only hf, clas"):
        find_causes(table, "other", masks, {})
    with pytest.raises(ClasError, match="has no gains"):
        find_causes(table, "hf", masks, {})


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
