"""Texts as the second witness of a task's language: when they win, when they are silent, and never a false alarm."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from importlib import resources
from typing import Any, ClassVar

import datasets
import pytest
from hub_data import XNLI, XQUAD
from lm_eval.api.instance import Instance

from lm_eval_clas.base.processes import Processes
from lm_eval_clas.languages.language_names import parse_language
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.languages.routing import LanguageRouter, Recognized, from_doc
from lm_eval_clas.languages.text_witness import DocumentTexts, TextWitness, all_over
from lm_eval_clas.texts.corpora import MINI_LANGUAGES, XNLI_LANGUAGES, XQUAD_LANGUAGES

KNOWN = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ro", "ru", "sw", "th", "tr", "ur", "vi", "zh")
# Written for this test: Hindi in Latin letters, Hindi and English in one sentence in Latin letters, and in both scripts.
ROMANISED = """
Mujhe kal subah jaldi uthna hai kyunki meri train chhe baje hai.
Aaj mausam bahut accha hai, chalo bahar ghoomne chalte hain.
Usne mujhse kaha ki woh shaam ko ghar wapas aa jayega.
Bharat ki rajdhani Nayi Dilli hai aur yahan bahut log rehte hain.
Kya aapne kabhi samundar ke kinare suraj ko doobte dekha hai?
Mere bhai ne pichle saal ek nayi gaadi kharidi thi.
Bachche maidan mein khel rahe the jab baarish shuru ho gayi.
Humein apne bade buzurgon ka aadar karna chahiye.
Doctor ne kaha ki roz subah paidal chalna sehat ke liye accha hota hai.
Is kitaab mein likha hai ki purane zamane mein log chitthi likhte the.
Meri maa roz subah chai banati hai aur akhbaar padhti hai.
Sarkar ne naye niyam banaye hain jo agle mahine se lagu honge.
""".strip().splitlines()
MIXED = """
Yaar kal ka movie dekha kya, the climax was totally unexpected and mujhe rona aa gaya.
Meeting postpone ho gayi hai, please sabko email kar do before lunch.
Mujhe lagta hai this phone ki battery life is really bad but camera accha hai.
Boss ne bola ki we need to finish the report by Friday warna problem ho jayegi.
Weekend pe hum log trekking ke liye jaa rahe hain, are you coming with us?
Ye restaurant ka food amazing hai but service thodi slow hai honestly.
Traffic itna zyada tha ki I reached office one hour late aaj.
Exam ke results kal aayenge and I am so nervous about maths.
Online order kiya tha last week but abhi tak delivery nahi hui.
Team ne last over mein match jeet liya, what an incredible finish tha yaar.
""".strip().splitlines()
TWO_SCRIPTS = """
मैंने कल नया laptop खरीदा and the battery life is really good.
Office में meeting थी so I could not call you back.
यह movie बहुत boring थी but songs अच्छे थे.
Please मुझे report भेज दो before the meeting starts today.
मेरा phone charge नहीं है so I will text you later tonight.
Train late थी इसलिए we missed the first half of the show.
""".strip().splitlines()


def mini(language: str) -> list[dict[str, Any]]:
    text = resources.files("lm_eval_clas").joinpath(f"data/mini/{language}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def requests(task: str, documents: list[Any], prompt: str = "") -> list[Instance]:
    return [
        Instance("loglikelihood", one, (prompt or str(one), " x"), 0, metadata=(task, number, 1))
        for number, one in enumerate(documents)
    ]


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "lm_eval.models.hf_clas"]


def route(task: str, documents: list[Any], **options: Any) -> set[tuple[str, str]]:
    router = LanguageRouter(options.pop("known", KNOWN), **options)
    return {(one.language, one.source) for one in router.recognize(requests(task, documents))}


@pytest.mark.parametrize("language", MINI_LANGUAGES)
def test_no_false_alarm_on_the_mini_tasks(language: str, caplog: pytest.LogCaptureFixture) -> None:
    assert route(f"clas_mini_qa_{language}", mini(language)) == {(language, "task name")}
    assert not warnings(caplog)


@pytest.mark.hub_data(XNLI)
@pytest.mark.parametrize("known", [KNOWN, ("en", "hi")], ids=["16 known", "2 known"])
@pytest.mark.parametrize("language", XNLI_LANGUAGES)
def test_no_false_alarm_on_xnli(language: str, known: tuple[str, ...], caplog: pytest.LogCaptureFixture) -> None:
    data = list(datasets.load_dataset(XNLI, language)["validation"])[::6]
    for start in range(0, len(data) - 20, 20):
        assert route(f"clas_xnli_{language}", data[start : start + 20], known=known) == {(language, "task name")}
    assert not warnings(caplog)


@pytest.mark.hub_data(XQUAD)
@pytest.mark.parametrize("language", XQUAD_LANGUAGES)
def test_no_false_alarm_on_xquad(language: str, caplog: pytest.LogCaptureFixture) -> None:
    data = list(datasets.load_dataset(XQUAD, f"xquad.{language}")["validation"])
    questions = [{"question": one["question"]} for one in data]
    for documents in (data[::6], questions[::3]):
        for start in range(0, len(documents) - 20, 20):
            assert route(f"clas_xquad_{language}", documents[start : start + 20]) == {(language, "task name")}
    assert not warnings(caplog)


@pytest.mark.parametrize("texts", [ROMANISED, MIXED, TWO_SCRIPTS], ids=["romanised", "mixed", "two scripts"])
@pytest.mark.parametrize("known", [KNOWN, ("en", "hi"), ("en", "de", "hi", "id", "ms", "so", "sw", "tl")], ids=["16", "2", "8"])
def test_no_false_alarm_on_romanised_and_mixed_texts(
    texts: list[str], known: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    for task in ("newsuite_hi", "newsuite_hin_Latn", "newsuite_hindi"):
        assert route(task, [{"text": text} for text in texts], known=known) == {("hi", "task name")}
    assert not warnings(caplog)


def test_texts_that_are_plainly_in_another_language_win_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    router = LanguageRouter(KNOWN, asker="vllm-clas")
    for _ in range(2):
        found = router.recognize([*requests("newsuite_hi", mini("de")), *requests("other_de", mini("de"))])
        assert set(found) == {Recognized("de", "detected"), Recognized("de", "task name")}
    assert warnings(caplog) == [
        "vllm-clas: the name of task newsuite_hi says 'hi', but its texts are plainly in 'de', and its requests are taken for "
        "that; give language=hi if the name is right."
    ]


@pytest.mark.parametrize("texts", ["en", "es", "ru", "zh"])
@pytest.mark.parametrize("named", ["hi", "ar", "de", "vi"])
def test_wrong_names_are_found_out(named: str, texts: str, caplog: pytest.LogCaptureFixture) -> None:
    assert route(f"newsuite_{named}_XX", mini(texts)) == {(texts, "detected")}
    assert len(warnings(caplog)) == 1


def test_instructions_in_english_around_foreign_texts_are_no_texts(caplog: pytest.LogCaptureFixture) -> None:
    prompt = "Read the passage below and answer the question with a short phrase taken from the passage. " * 4
    found = LanguageRouter(KNOWN).recognize(requests("newsuite_hi", mini("hi"), prompt))
    assert set(found) == {Recognized("hi", "task name")}
    subjects = [
        {**one, "subject": "us_foreign_policy", "url": "https://example.org/a_long_path/of_the_page"} for one in mini("hi")
    ]
    assert route("newsuite_hi", subjects) == {("hi", "task name")}
    strings = DocumentTexts.of({"a": "one_word", "b": ["x", {"c": "मेरा फोन आज ठीक नहीं है"}], "d": 3}, "prompt")
    assert strings.text == "मेरा फोन आज ठीक नहीं है"
    assert DocumentTexts.of({"a": "1"}, "prompt").text == DocumentTexts.of(None, "prompt").text == "prompt"
    assert not warnings(caplog)


def test_a_doubtful_name_needs_texts_that_agree(caplog: pytest.LogCaptureFixture) -> None:
    italian = "La mattina il fornaio apre il negozio prima dell'alba e prepara il pane per tutto il paese con molta pazienza."
    assert route("newsuite_it", [{"text": italian}] * 5) == {("it", "task name")}
    assert route("newsuite_it", mini("en")) == {("en", "detected")}
    assert route("newsuite_it", [{"x": "42"}]) == {("und", "detected")}
    assert route("newsuite_italian", [{"x": "42"}]) == {("it", "task name")}


def test_a_task_without_a_language_in_its_name_is_in_that_of_its_texts() -> None:
    short = [*mini("vi"), {"text": "Internet2?"}]
    assert route("newsuite", short) == {("vi", "detected")}
    both = LanguageRouter(KNOWN).recognize(requests("newsuite", [*mini("vi"), *mini("ru")]))
    assert [one.language for one in both] == ["vi"] * len(mini("vi")) + ["ru"] * len(mini("ru"))


def questions(language: str, number: int) -> list[dict[str, Any]]:
    every = [{"question": one["question"]} for one in mini(language)]
    return [every[position % len(every)] for position in range(number)]


@pytest.mark.parametrize("first", ["de", "en"])
def test_a_task_of_one_language_after_the_other_is_told_by_each_document(first: str) -> None:
    order = [first, *({"de", "en", "es", "hi"} - {first})]
    found = LanguageRouter(KNOWN).recognize(requests("mixedqa", [one for code in order for one in questions(code, 40)]))
    assert found == [Recognized(code, "detected") for code in order for _ in range(40)]


def test_a_document_plainly_in_another_language_than_the_texts_of_its_task_is_in_that() -> None:
    short = [{"question": "Internet2?"}, {"question": "1984"}, {"question": "BBC"}]
    documents = [*questions("de", 150), *short, *questions("es", 4), *questions("hi", 3), {"question": "Ciao"}]
    expected = ["de"] * 153 + ["es"] * 4 + ["hi"] * 3 + ["de"]
    for task in ("newsuite", "newsuite_ru_XX"):  # also where the texts won over the name
        found = LanguageRouter(KNOWN).recognize(requests(task, documents))
        assert found == [Recognized(code, "detected") for code in expected]
    named = LanguageRouter(KNOWN).recognize(requests("newsuite_de", documents))
    assert set(named) == {Recognized("de", "task name")}


def asked(documents: list[dict[str, Any]], prompt: str) -> list[Instance]:
    """Requests with the question of each document in a prompt."""
    return [
        Instance("generate_until", one, (prompt.replace("QUESTION", one["question"]), {}), 0, metadata=("newsuite", number, 1))
        for number, one in enumerate(documents)
    ]


@pytest.mark.parametrize(
    "prompt",
    [
        "You are a helpful assistant. Answer the question of the user in a short and friendly way.\n\nQUESTION",
        "<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nQUESTION<|im_end|>\n<|im_start|>assistant\n",
        "".join(f"Question: {one['question']}\nAnswer: {one['answer']}\n\n" for one in mini("en")[:3])
        + "Question: QUESTION\nAnswer:",
    ],
    ids=["system", "template", "examples"],
)
def test_what_stands_around_a_document_does_not_tell_its_language(prompt: str) -> None:
    turn = [one for three in zip(*(questions(code, 40) for code in ("de", "es", "hi")), strict=True) for one in three]
    found = LanguageRouter(KNOWN).recognize(asked(turn, prompt))
    assert found == [Recognized(code, "detected") for _ in range(40) for code in ("de", "es", "hi")]
    short = [{"question": "Wo ist er?"}, {"question": "¿Qué es?"}, {"question": "यह क्या है?"}] * 10
    told = LanguageRouter(("de", "en", "es", "hi")).recognize(asked(short, prompt))
    assert told == [Recognized(code, "detected") for _ in range(10) for code in ("de", "es", "hi")]


def test_of_a_document_in_several_languages_that_counts_which_is_asked() -> None:
    documents = [
        {"question": one["question"], "original": other["passage"]}
        for code in ("de", "hi")
        for one, other in zip(mini(code), mini("en"), strict=True)
    ]
    found = LanguageRouter(KNOWN).recognize(asked(documents, "Please answer in a few words. QUESTION"))
    assert [one.language for one in found] == ["de"] * len(mini("de")) + ["hi"] * len(mini("hi"))


def test_the_prompt_tells_where_the_document_has_no_words() -> None:
    for numbers in ("42", "12 + 5 = 17"):
        german = asked([{"question": numbers}], "Was ergibt diese Rechnung, und warum ist das so? QUESTION")
        assert LanguageRouter(KNOWN).recognize(german) == [Recognized("de", "detected")]


@pytest.mark.hub_data(XNLI)
@pytest.mark.parametrize("language", XNLI_LANGUAGES)
def test_a_single_document_hardly_ever_contradicts_its_task(language: str) -> None:
    witness = TextWitness(KNOWN)
    texts = datasets.load_dataset(XNLI, language)["validation"]["hypothesis"][::8]
    other = [said for text in texts if (said := witness.contradicts(text, language))]
    assert len(other) <= (0.03 if language in ("hi", "ur") else 0.005) * len(texts)  # in Latin letters, or Pashto


def test_documents_all_over_a_task() -> None:
    assert all_over(0, 20) == []
    assert all_over(20, 20) == list(range(20))
    for documents in (21, 39, 160, 393, 1000, 14_042):
        chosen = all_over(documents, 20)
        assert chosen == all_over(documents, 20)
        assert all(part * documents // 20 <= chosen[part] < (part + 1) * documents // 20 for part in range(20))
        for languages in range(2, 9):  # that take turns
            assert max(Counter(position % languages for position in chosen).values()) < 17


class OneOfTwo(Processes):
    """One of two processes that run as threads, and hear what the other says."""

    said: ClassVar[list[Any]] = []
    together: ClassVar[threading.Barrier]

    def gather(self, value: Any) -> list[Any]:
        self.said[self.rank] = value
        self.together.wait(60)
        heard = list(self.said)
        self.together.wait(60)
        return heard


def in_two_processes(asked: list[Instance]) -> list[Recognized]:
    """What two processes find, each of every other document, in the order of a single one."""
    OneOfTwo.said[:], OneOfTwo.together = [None, None], threading.Barrier(2)
    routers = [LanguageRouter(KNOWN, processes=OneOfTwo(rank, 2)) for rank in range(2)]
    with ThreadPoolExecutor(2) as threads:
        halves = list(threads.map(lambda rank: routers[rank].recognize(asked[rank::2]), range(2)))
    return [halves[number % 2][number // 2] for number in range(len(asked))]


def test_processes_with_a_share_of_the_documents_judge_as_one_process_does() -> None:
    """Each alone finds another language: every other text is German, and the name does not settle it."""
    turn = [{"text": one["passage"]} for pair in zip(mini("hi"), mini("de"), strict=True) for one in pair]
    last = [*turn, *({"text": one["passage"]} for one in mini("de"))]
    few = [*questions("de", 70), *questions("es", 3)]
    for task, documents in (
        ("newsuite", turn), ("newsuite_hi", turn), ("newsuite_it", turn[:7]), ("newsuite", last), ("newsuite", few),
    ):  # fmt: skip
        asked = requests(task, documents)
        assert in_two_processes(asked) == LanguageRouter(KNOWN).recognize(asked)
    alone = [LanguageRouter(KNOWN).recognize(requests("newsuite_hi", turn)[rank::2]) for rank in range(2)]
    assert {one.language for one in alone[0]} == {"hi"}
    assert {one.language for one in alone[1]} == {"de"}


def test_a_process_without_texts_of_a_task_hears_those_of_others() -> None:
    """Documents with a field `language` are not looked at; here the second process has no others."""
    documents = [one if number % 2 == 0 else {**one, "language": "fr"} for number, one in enumerate(mini("ru"))]
    asked = requests("newsuite_hi", documents)
    found = in_two_processes(asked)
    assert found == LanguageRouter(KNOWN).recognize(asked)
    assert set(found) == {Recognized("ru", "detected"), Recognized("fr", "doc")}


def test_texts_say_nothing_of_languages_that_detection_does_not_know(caplog: pytest.LogCaptureFixture) -> None:
    assert route("newsuite_mos_Latn", mini("fr")) == {("mos", "task name")}
    assert not warnings(caplog)


def test_pairs_are_told_by_their_name_alone() -> None:
    documents = [
        {"source": one["passage"], "target": other["passage"]} for one, other in zip(mini("en"), mini("hi"), strict=True)
    ]
    for pair, language in {"target": "hi", "source": "en", "off": "und"}.items():
        assert route("mt_en-hi", documents, pair=pair) == {(language, "task name")}


GALICIAN = """
Os primeiros habitantes da illa chegaron en pequenas barcas hai máis de tres mil anos.
A choiva non deixou de caer durante toda a noite e o río saíu do seu leito.
Moita xente prefire viaxar en tren porque é máis barato e máis cómodo.
O goberno anunciou onte que os prezos da luz baixarán o próximo mes.
Na praza do pobo hai unha fonte onde os nenos xogan cando chega o verán.
Despois do xantar, a miña avoa adoitaba contar historias da súa xuventude.
O equipo galego gañou o partido por dous goles a un na última xornada.
Non se sabe aínda cantas persoas resultaron feridas no accidente.
O mercado abre ás oito da mañá e pecha ás dúas da tarde.
Cando chegamos á praia, o mar estaba tranquilo e non había ninguén.
Os bombeiros tardaron tres horas en apagar o lume do monte.
Onte pola tarde perdín as chaves da casa e tiven que chamar un cerralleiro.
""".strip().splitlines()


def test_a_language_and_a_region_in_small_letters_are_told_by_the_texts(caplog: pytest.LogCaptureFixture) -> None:
    galician = [{"transcription": text, "group": "western european languages"} for text in GALICIAN]
    for known in (KNOWN, ("en", "es"), ("en", "hi")):
        for pair in ("target", "source", "off"):
            assert route("fleurs_gl_es", galician, known=known, pair=pair) == {("gl", "task name")}
    for task, language in {"qa_fr_ca": "fr", "qa_es_cu_law": "es", "qa-de-it": "de", "qa_zh_tw": "zh"}.items():
        assert route(task, mini(language)) == {(language, "task name")}
    assert not warnings(caplog)


def test_two_languages_of_which_one_is_also_a_region_stay_a_pair_where_the_texts_have_both() -> None:
    both = list(zip(mini("en"), mini("es"), strict=True))
    translations = [{"source": one["passage"], "target": other["passage"]} for one, other in both]
    lines = "\n".join(one["passage"] for one, _ in both)
    long = [{"article": f"{one['question']}\n{lines}", "summary": other["question"]} for one, other in both]
    spanish, words = [other for _, other in both], [{"source": "bread", "target": "pan"}] * 20
    for documents in (translations, long, spanish, words, mini("en")[:1]):
        assert route("mt_en_es", documents) == {("es", "task name")}
    # Where other tasks say that these are languages, they are.
    router = LanguageRouter(KNOWN)
    names = ("suite_en_es", "suite_en_hi", "suite_en_zh")
    found = router.recognize([one for name in names for one in requests(name, mini("en"))])
    assert [one.language for one in found[:: len(mini("en"))]] == ["es", "hi", "zh"]
    assert route("mlqa_en_es", mini("en")) == {("es", "task name")}


def test_few_texts_are_no_witness() -> None:
    assert TextWitness(KNOWN).hear(["Der Storch baut im Frühling ein Nest."], "hi").plainly is None


def test_a_documents_language_may_be_a_code_or_a_name_and_not_a_language_of_computers() -> None:
    for value, language in {"hin": "hi", "Chinese (Simplified)": "zh", "Brazilian Portuguese": "pt", "Kiswahili": "sw"}.items():
        assert from_doc({"language": value}) == language
    for value in ("Lua", "lua", "C#", "Java", "python3", "Ada", "en,de", "English / Hindi"):
        assert from_doc({"language": value}) is None
    assert from_doc({"language": "cs"}, "qa") == "cs"
    assert from_doc({"language": "cs"}, "humaneval_x") is None


def test_in_tasks_about_code_a_documents_field_is_a_natural_language_only_by_its_name() -> None:
    codes = (
        "pl",
        "ts",
        "sh",
        "cs",
        "go",
        "rs",
        "rb",
        "ml",
        "kt",
        "rkt",
        "clj",
        "hs",
        "ada",
        "cpp",
        "Ada",
        "Perl",
        "Scala",
        "Bash",
    )
    for task in ("multiple-x", "multipl_e", "humaneval_multi", "mbpp_plus", "code2text", "code_contests"):
        assert [from_doc({"language": code}, task) for code in codes] == [None] * len(codes)
        for value, language in {"Polish": "pl", "Chinese (Simplified)": "zh", "deutsch": "de", "Hindi ": "hi"}.items():
            assert from_doc({"language": value}, task) == language
    for task in ("qa_multiple_choice", "multiple_choice_questions", "code_mixed_qa", "codeswitching"):
        assert from_doc({"language": "pl"}, task) == "pl"
    perl = [{"prompt": "# Return the sum of two numbers that are given.\nsub add {", "language": "pl"}] * 30
    assert route("multiple-x", perl, known=("en", "pl")) == {("en", "detected")}


def test_what_stands_for_something_else_in_names_does_so_in_a_documents_field() -> None:
    assert from_doc({"language": "MSA"}, "dialects") == "ar"
    assert from_doc({"language": "msa_Latn"}) == "ms"
    assert [from_doc({"language": value}) for value in ("msa", "LEV", "ch", "", "  ", 3)] == [None] * 6
    arabic = [{"text": one["passage"], "language": "LEV"} for one in mini("ar")]
    assert route("dialects", arabic) == {("ar", "detected")}


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("zh-Hant", "zh"), ("zh-CN", "zh"), ("hin", "hi"), ("HI", "hi"), ("pt-BR", "pt"), ("iw", "he"), ("farsi", "fa"),
        ("Chinese (Simplified)", "zh"), ("Simplified Chinese", "zh"), ("Brazilian Portuguese", "pt"), ("Kiswahili", "sw"),
        ("हिन्दी", "hi"), ("Deutsch", "de"), ("Egyptian Arabic", "arz"), ("Português do Brasil", "pt"),
        ("Norwegian Bokmål", "nb"),
        ("Scottish Gaelic", "gd"), ("Java", None), ("English, Hindi", None), ("", None), ("C#", None), ("nonsense", None),
        ("hindsight", None),
    ],
)  # fmt: skip
def test_languages_are_understood_in_any_common_form(text: str, code: str | None) -> None:
    assert parse_language(text) == code


@pytest.mark.parametrize(
    ("language", "known", "meets"),
    [
        ("qu", ("quy", "en"), "quy"), ("quy", ("qu",), "qu"), ("arz", ("ar", "en"), "ar"), ("ar", ("arz",), "arz"),
        ("qu", ("quy", "quz"), "qu"), ("arz", ("ary",), "arz"), ("arz", ("ar", "arz"), "arz"), ("nb", ("no",), "no"),
        ("hr", ("sr",), "hr"), ("de", ("en",), "de"),
    ],
)  # fmt: skip
def test_a_member_meets_its_macrolanguage_if_only_one_fits(language: str, known: tuple[str, ...], meets: str) -> None:
    assert as_known(language, known) == meets


def test_detection_does_not_load_for_forced_languages() -> None:
    logging.getLogger("lm_eval.models.hf_clas")
    router = LanguageRouter(KNOWN, "ur")
    assert set(router.recognize(requests("newsuite_hi", mini("de")))) == {Recognized("ur", "forced")}
