"""`hf-clas` and the language of requests: macrolanguages, pairs, names of languages, and what the results file says of them."""

from __future__ import annotations

import dataclasses

import pytest
from lm_eval.api.instance import Instance
from requests_made import TEXTS, clas
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import ClasError, MaskSet
from lm_eval_clas.harness.tally import told_in_a_line


def renamed(masks: MaskSet, **names: str) -> MaskSet:
    """The masks with other codes for some languages."""
    languages = [names.get(one, one) for one in masks.languages]
    return dataclasses.replace(masks, config=masks.config.model_copy(update={"languages": languages}))


def asked(task: str, language: str) -> list[Instance]:
    return [Instance("loglikelihood", {}, (text, " yes"), 0, (task, number, 1)) for number, text in enumerate(TEXTS[language])]


@pytest.mark.parametrize(
    ("known", "task", "language"), [("quy", "xcopa_qu", "qu"), ("qu", "qa_quy_Latn", "quy"), ("ar", "belebele_arz_Arab", "arz")]
)
def test_a_member_is_steered_as_its_macrolanguage_and_the_results_say_so(
    known: str, task: str, language: str, tokenizer: PreTrainedTokenizerFast, masks: MaskSet
) -> None:
    requests = asked(task, "de")
    right = clas(tokenizer, masks, alpha=4, language="de").loglikelihood(requests)
    lm = clas(tokenizer, renamed(masks, de=known), alpha=4)
    assert lm.loglikelihood(requests) == right
    info = lm.steering_info()
    assert info["languages"] == {language: {"requests": 2, "recognized": {"task name": 2}, "steered_as": known}}
    assert info["left_alone"] == {}
    assert f"steered requests: {known} 2 (task name); left alone: none" in told_in_a_line(info)
    forced = clas(tokenizer, renamed(masks, de=known), alpha=4, language=language)
    assert forced.loglikelihood(requests) == right


def test_two_members_fit_and_none_is_taken(tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> None:
    lm = clas(tokenizer, renamed(masks, de="quy", hi="quz"), alpha=4)
    lm.loglikelihood(asked("xcopa_qu", "de"))
    assert lm.steering_info()["left_alone"] == {"qu": "not in the masks"}


@pytest.mark.parametrize(("pair", "steered"), [("target", "hi"), ("source", "de"), ("off", None)])
def test_a_pair_is_steered_as_the_option_says(
    pair: str, steered: str | None, tokenizer: PreTrainedTokenizerFast, masks: MaskSet
) -> None:
    requests = asked("wmt_de-hi", "de")
    alone = clas(tokenizer, masks, alpha=4, language=steered) if steered else clas(tokenizer, masks, alpha=0)
    lm = clas(tokenizer, masks, alpha=4, pair=pair)
    assert lm.loglikelihood(requests) == alone.loglikelihood(requests)
    assert lm.steering_info()["pair"] == pair
    assert lm.steering_info()["left_alone"] == ({} if steered else {"und": "not recognised"})


def test_languages_are_given_by_name_or_code(tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> None:
    requests = asked("anything", "de")
    answers = {
        tuple(clas(tokenizer, masks, alpha=4, language=one).loglikelihood(requests)) for one in ("de", "deu", "DE", "German")
    }
    assert len(answers) == 1
    with pytest.raises(ClasError, match="language=quux is not a language; give a code or a name"):
        clas(tokenizer, masks, language="quux")
    with pytest.raises(ClasError, match="pair must be one of target, source, off, not 'both'"):
        clas(tokenizer, masks, pair="both")
    with pytest.raises(ClasError, match="pair without masks= has no effect"):
        clas(tokenizer, None, pair="source")


def test_alphas_are_given_by_name_or_code(tokenizer: PreTrainedTokenizerFast, masks: MaskSet) -> None:
    requests = asked("qa_hi", "hi")
    plain = clas(tokenizer, masks, alpha={"hi": 3.0, "default": 0}).loglikelihood(requests)
    for key in ("HI", "hin_Deva", "Hindi"):
        assert clas(tokenizer, masks, alpha={key: 3.0, "default": 0}).loglikelihood(requests) == plain
