"""Everything that takes a language takes codes in any form and names, and finds a member of a macrolanguage or the reverse."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from requests_made import clas
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_clas import ActivationSteerer, ClasError, MaskSet, ParallelInputBuilder, Profile
from lm_eval_clas.export.outline import scalings
from lm_eval_clas.geometry.geometry_run import shared_languages
from lm_eval_clas.languages.macrolanguages import known_language
from lm_eval_clas.masks.lape import with_neuron_file
from lm_eval_clas.steering.alphas import parse_alpha
from lm_eval_clas.texts.corpora import ParallelTexts
from lm_eval_clas.texts.metrics import f1_lang

# What a user may write for the language of masks or of a corpus, and the code that they have.
FORMS = [("qu", "quy"), ("Quechua", "quy"), ("quy", "qu"), ("que_Latn", "qu"), ("arz", "ar"), ("Arabic", "arz"), ("DE", "de")]
forms = pytest.mark.parametrize(("given", "own"), FORMS)


@pytest.fixture
def having(masks: MaskSet) -> Callable[[str], MaskSet]:
    """The masks with another code in the place of German's."""

    def made(code: str) -> MaskSet:
        languages = [code if one == "de" else one for one in masks.languages]
        return dataclasses.replace(masks, config=masks.config.model_copy(update={"languages": languages}))

    return made


@forms
def test_the_known_language_is_found(given: str, own: str) -> None:
    assert known_language(given, ("en", own, "hi")) == own


def test_nothing_is_found_where_two_fit_or_none() -> None:
    assert known_language("qu", ("quy", "quz")) == "qu"
    assert known_language("Quechua", ("quy", "quz")) == "qu"
    assert known_language("xx", ("quy",)) == "xx"
    assert known_language("quux", ("quy",)) == "quux"


@forms
def test_masks_and_steerers_take_it(given: str, own: str, having: Callable[[str], MaskSet], model: PreTrainedModel) -> None:
    masks = having(own)
    assert masks.code_of(given) == own
    assert masks.index(given) == 2
    assert (masks.specific_in(given) == masks.specific_in(own)).all()
    with ActivationSteerer(model, masks, alpha=2.0) as steerer:
        assert torch.equal(steerer.factors(given), steerer.factors(own))
        with steerer.language(given) as block:
            model(input_ids=torch.arange(4, 12)[None])
        assert block.language == own
        assert set(block.positions.values()) == {8}
        assert steerer.unchanged("English") == "anchor"


@forms
def test_alphas_take_it(given: str, own: str, having: Callable[[str], MaskSet], tmp_path: Path) -> None:
    (tmp_path / "alpha.json").write_text(json.dumps({given: -2, "default": 1}))
    for alpha in (str(tmp_path / "alpha.json"), {given: -2.0, "default": 1.0}):
        assert parse_alpha(alpha, having(own)) == {own: -2, "default": 1}


def test_two_alphas_of_one_language_are_refused(having: Callable[[str], MaskSet]) -> None:
    with pytest.raises(ClasError, match="alpha has two numbers for 'quy', as 'qu' and as 'quy'; keep one of them"):
        parse_alpha({"qu": 1.0, "quy": 2.0, "default": 0.0}, having("quy"))


@forms
def test_exports_take_it(given: str, own: str, having: Callable[[str], MaskSet]) -> None:
    (one,), _ = scalings(having(own), [given, own], alpha=2.0)
    assert one.language == own


@forms
def test_the_option_of_the_harness_takes_it(
    given: str, own: str, having: Callable[[str], MaskSet], tokenizer: PreTrainedTokenizerFast
) -> None:
    clas(tokenizer, having(own), alpha=4, language=given)
    with pytest.raises(ClasError, match=r"The masks have no language 'fr', only"):
        clas(tokenizer, having(own), alpha=4, language="French")


@forms
def test_corpora_take_it(given: str, own: str, tmp_path: Path) -> None:
    (tmp_path / f"{own}.txt").write_text("a\n")
    (tmp_path / "en.txt").write_text("b\n")
    assert ParallelInputBuilder(str(tmp_path), [given, "English"]).build().languages == (own, "en")


def test_files_of_a_corpus_are_named_by_code_or_name(tmp_path: Path) -> None:
    for name in ("Spanish", "Chinese (Simplified)", "hin_Deva", "Kiswahili"):
        (tmp_path / f"{name}.txt").write_text("a\n")
    assert set(ParallelInputBuilder(str(tmp_path)).build().languages) == {"es", "zh", "hi", "sw"}
    (tmp_path / "es.txt").write_text("a\n")
    with pytest.raises(ClasError, match=r"are both of language 'es'; keep one of them"):
        ParallelInputBuilder(str(tmp_path)).build()


@forms
def test_texts_of_geometry_meet_the_masks(given: str, own: str, having: Callable[[str], MaskSet]) -> None:
    code = known_language(given, ())  # as a corpus has it
    texts = ParallelTexts("x", ("1",), {"fr": ("f",), code: ("q",), "hi": ("h",), "en": ("e",)})
    assert shared_languages(texts, having(own)).texts == {"en": ("e",), own: ("q",), "hi": ("h",)}


@forms
def test_lists_of_neurons_meet_the_masks(given: str, own: str, having: Callable[[str], MaskSet], tmp_path: Path) -> None:
    neurons = [[torch.tensor([number]) for _ in range(6)] for number in (3, 7)]
    torch.save(neurons, tmp_path / "x.neuron.pth")
    made = with_neuron_file(having(own), tmp_path / "x.neuron.pth", ["French", given])
    assert made.owned is not None
    assert made.owned[2].nonzero()[1].tolist() == [7] * 6
    assert not made.owned[[0, 1, 3]].any()


def test_the_anchor_is_given_by_name_or_code(profiled: Profile) -> None:
    for given in ("English", "eng", "EN"):
        assert MaskSet.from_profile(profiled, anchor=given, bridge="2-4").anchor == "en"


def test_scores_know_a_language_by_name_or_code() -> None:
    for given in ("zh", "zh-Hant", "Chinese", "cmn", "zho_Hans"):
        assert f1_lang("北京市", ["北京"], given) == pytest.approx(0.8)
