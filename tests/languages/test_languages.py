"""The language of a request: from its doc, its task's name, or its text."""

from __future__ import annotations

import random

import pytest
from lm_eval.api.instance import Instance
from pydantic import TypeAdapter, ValidationError

from lm_eval_clas.languages.codes import LanguageCode, normalize
from lm_eval_clas.languages.detection import Detector
from lm_eval_clas.languages.routing import LanguageRouter, from_doc
from lm_eval_clas.languages.task_names import from_task_name

KNOWN = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ro", "ru", "sw", "th", "tr", "ur", "vi", "zh")


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("hi", "hi"), ("hin", "hi"), ("hin_Deva", "hi"), ("zho_Hans", "zh"), ("zh-CN", "zh"), ("cmn", "zh"),
        ("arb_Arab", "ar"), ("swh_Latn", "sw"), ("pt_BR", "pt"), ("EN", "en"), ("iw", "he"), ("quy", "quy"),
        ("python", None), ("", None), ("x!", None), ("easy", None), ("xx", None),
    ],
)  # fmt: skip
def test_codes_are_normalised(code: str, expected: str | None) -> None:
    assert normalize(code) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # names of tasks in the harness
        ("xnli_hi", "hi"), ("xquad_zh", "zh"), ("belebele_hin_Deva", "hi"), ("belebele_zho_Hans", "zh"),
        ("global_mmlu_sw", "sw"), ("global_mmlu_full_sw_virology", "sw"), ("mgsm_direct_th", "th"), ("mgsm_en_cot_th", "th"),
        ("mgsm_native_cot_en", "en"), ("xcopa_et", "et"), ("xstorycloze_ar", "ar"), ("xwinograd_zh", "zh"),
        ("lambada_openai_mt_de", "de"), ("m_mmlu_vi", "vi"), ("arc_hi", "hi"), ("hellaswag_ru", "ru"), ("paws_es", "es"),
        ("include_base_44_hindi", "hi"), ("include_base_44_greek_few_shot_en_stem", "el"), ("french_bench_arc_challenge", "fr"),
        ("flores_eng_Latn-swh_Latn", "sw"), ("afrimmlu_direct_swa_prompt_1", "sw"),
        ("global_piqa_completions_urd_arab", "ur"), ("global_piqa_completions_hin_deva", "hi"),
        # ours
        ("clas_xnli_dev_sw", "sw"), ("clas_xquad_tune_hi", "hi"), ("clas_mini_qa_ur", "ur"), ("clas_xnli_th", "th"),
        # no language in them
        ("arc_easy", None), ("arc_challenge", None), ("hellaswag", None), ("mmlu_abstract_algebra", None), ("boolq", None),
        ("truthfulqa_mc1", None), ("gsm8k", None), ("winogrande", None), ("piqa", None), ("wikitext", None), ("", None),
        ("bbh_cot_fewshot_date_understanding", None), ("blimp_only_npi_scope", None), ("ifeval", None),
        ("agieval_lsat_ar", None), ("inverse_scaling_hindsight_neglect_10shot", None), ("persona_subscribes-to-Hinduism", None),
        ("bigbench_gre_reading_comprehension_multiple_choice", None), ("lm_syneval__agreement__ES_EV__x", None),
        ("arithmetic_2da", None), ("zhoblimp_question_A_not_A_indirect", None),
    ],
)  # fmt: skip
def test_task_names_tell_their_language(name: str, expected: str | None) -> None:
    assert from_task_name(name, KNOWN) == expected


def test_a_doc_may_tell_by_code_or_name() -> None:
    assert from_doc({"language": "hi"}) == "hi"
    assert from_doc({"language": "Hindi"}) == "hi"
    assert from_doc({"language": "zho_Hans"}) == "zh"
    for doc in ({"language": 3}, {"language": " "}, {"lang": "hi"}, {"language": "python3"}, {"language": "Java"}, None, "hi"):
        assert from_doc(doc) is None


def request(task: str, doc: object, context: str, continuation: str = " x", number: int = 0) -> Instance:
    return Instance("loglikelihood", doc, (context, continuation), 0, (task, number, 1))  # type: ignore[arg-type]


def test_the_first_source_that_answers_wins() -> None:
    german = "Der Storch baut im Frühling ein Nest auf dem Dach."
    cases = [
        (request("xnli_hi", {"language": "zh"}, german), "zh", "doc"),
        (request("xnli_hi", {}, german), "hi", "task name"),
        (request("arc_easy", {}, german), "de", "detected"),
    ]
    router = LanguageRouter(KNOWN)
    for one, language, source in cases:
        (found,) = router.recognize([one])
        assert (found.language, found.source) == (language, source)
    forced = LanguageRouter(KNOWN, "ur").recognize([one for one, _, _ in cases])
    assert {(found.language, found.source) for found in forced} == {("ur", "forced")}


def test_all_choices_of_one_document_get_one_language() -> None:
    texts = ["यह एक लंबा वाक्य है।", "OK", "Das ist", "वह घर गया और सो गया।"]
    empty = [request("story", {}, "", text) for text in texts]
    assert {found.language for found in LanguageRouter(KNOWN).recognize(empty)} == {"hi"}
    shared = [request("story", {}, "Der Hund schläft unter dem Tisch.", text) for text in texts]
    assert {found.language for found in LanguageRouter(KNOWN).recognize(shared)} == {"de"}


FRENCH = "Le train de nuit quitte la capitale à neuf heures du soir."


def test_detection_chooses_among_the_candidates() -> None:
    assert Detector(KNOWN).detect(FRENCH) == "fr"
    norwegian = "Jeg vet ikke hvorfor de ikke kom hjem i går kveld."
    assert Detector(["en", "nb"]).detect(norwegian) == "nb"


def test_detection_tells_what_is_in_no_candidate_and_what_has_no_words() -> None:
    assert Detector(["en", "hi", "zh"]).detect(FRENCH) == "fr"
    for text in ("", "42", "A", "= ?"):
        assert Detector(KNOWN).detect(text) == "und"


def test_detection_leaves_the_library_as_it_was() -> None:
    import py3langid

    before = py3langid.classify(FRENCH)
    Detector(["en", "hi"]).detect(FRENCH)
    assert py3langid.classify(FRENCH) == before


def test_a_normalised_code_is_normalised_and_only_those_are_in_configurations() -> None:
    code = TypeAdapter(LanguageCode)
    chance = random.Random(0)
    letters = "abcdefghijklmnopqrstuvwxyzABCXYZ0-_./ \n"
    given = ["hi", "HI", "zh-Hant", "zho_Hans", "und", "", "\ud800", "x" * 10_000]
    given += ["".join(chance.choice(letters) for _ in range(chance.randrange(1, 9))) for _ in range(3_000)]
    accepted = 0
    for one in given:
        found = normalize(one)
        assert found is None or normalize(found) == found
        if found == one:
            assert code.validate_python(one) == one
            assert one.isascii()
            assert one.isalpha()
            assert one.islower()
            accepted += 1
        else:
            with pytest.raises(ValidationError):
                code.validate_python(one)
    assert accepted > 20
