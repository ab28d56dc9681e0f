"""The language in a task's name: the given cases, every name of the installed harness, and names of suites nobody has seen."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from suites_of_the_harness import truth

from lm_eval_clas.languages.codes import normalize
from lm_eval_clas.languages.sibling_names import Siblings
from lm_eval_clas.languages.task_index import installed, read_index
from lm_eval_clas.languages.task_names import NamedLanguage, from_task_name, read_task_name, without_language

DATA = Path(__file__).parent / "data"
XNLI = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
MORE = """
am az be bn ca cs cy da et eu fa fi fil ga gl gu ha he hr hu hy id ig is it ja ka kk km kn ko lo lt lv mk ml mn mr ms my ne nl
no pa pl pt ro si sk sl so sq sr sv ta te tg uk uz xh yo zu af as bs eo fo gd ht jv ku ky lb mg mi mt nb nn ny oc om or
qu sa sd sn
"""
SIXTY = [*XNLI, *MORE.split()[:45]]
HUNDRED = [*XNLI, *MORE.split()[:85]]


def rows(file: str) -> list[dict[str, str]]:
    with (DATA / file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines, delimiter="\t"))


@pytest.mark.parametrize("known", [XNLI, SIXTY, HUNDRED], ids=["15", "60", "100"])
def test_the_given_names_are_read_rightly(known: list[str]) -> None:
    wrong = []
    for row in rows("routing.tsv"):
        said = from_task_name(row["task"], known)
        right = {normalize(code) for code in row["allowed"].split(",")}
        if not (said in right or (said is None and row["must"] == "-")):
            wrong.append((row["task"], row["must"], said))
    assert wrong == []


@pytest.mark.parametrize("known", [XNLI, SIXTY, HUNDRED], ids=["15", "60", "100"])
def test_no_name_of_the_harness_is_read_wrongly_or_missed(known: list[str]) -> None:
    assert len(set(known)) == len(known) in (15, 60, 100)
    plain, wrong, missed = 0, [], []
    for name in installed().members:
        says, said = truth(name), from_task_name(name, known)
        plain += says.plain
        if said is None:
            missed += [name] if says.plain else []
        elif said not in says.right or (says.plain and said != says.right[-1]):
            wrong.append((name, says.right, said))
    assert (wrong, missed) == ([], [])
    assert plain > 10_000


def test_the_index_has_every_name_of_the_harness() -> None:
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    assert list(installed().members) == manager.all_tasks
    assert installed().tasks("xnli") == [f"xnli_{one}" for one in XNLI]
    assert len(installed().tasks("mmlu")) == 57
    for tag in ("ai2_arc", "mmlu_humanities_tasks"):
        assert set(installed().tasks(tag)) == manager.task_index[tag].tags


@pytest.mark.parametrize("row", rows("routing_other_names.tsv"), ids=lambda row: row["task"])
def test_names_as_other_people_write_them(row: dict[str, str]) -> None:
    expected = row["language"].split(",")[0].split(" ")[0]
    found = read_task_name(row["task"])
    if expected.startswith("-"):
        assert found is None
    elif expected.startswith("pair"):
        pair = {"mlqa_en_zh": ("en", "zh")}.get(row["task"]) or tuple(row["language"].removeprefix("pair: ").split(", "))
        assert found is not None
        assert found.pair == pair
    else:
        assert found is not None
        assert (found.language, found.pair) == (expected, None)


@pytest.mark.parametrize(
    ("name", "language"),
    [
        # tags: script, region, both, in capitals or not
        ("newsuite_hin_Deva", "hi"), ("newsuite_hin_deva", "hi"), ("news_es_MX", "es"),
        ("news_es-419", "es"), ("news_es_la", "es"), ("qa_zh_tw", "zh"), ("qa_cmn-tw_law", "zh"),
        ("qa_ar_SA", "ar"), ("qa_ar_xy_law", "ar"),
        ("ifeval_pt-br", "pt"), ("qa_nb_NO", "nb"), ("cmn_Hant_qa", "zh"), ("qa_it_it_law", "it"), ("de-DE_qa", "de"),
        ("qa_arz_Arab", "arz"), ("qa_snd_deva", "sd"), ("what_is_IS", "is"), ("story_in_US", None),
        # names beat codes, wherever they stand
        ("hindi_qa_en", "hi"), ("SwahiliQA_en_stem", "sw"), ("Kiswahili_qa", "sw"),
        ("qa_farsi", "fa"), ("qa_north_macedonian", "mk"),
        ("qa_brazilian_portuguese", "pt"), ("qa_chinese_simplified", "zh"), ("my_HindiQA", "hi"), ("hindsight_qa", None),
        # codes
        ("newsuite_hi", "hi"), ("newsuite_hi_biology", "hi"), ("newsuite-hi", "hi"), ("xquad.hi", "hi"), ("hi_newsuite", "hi"),
        ("squad_de_v2", "de"), ("qa_swa_prompt_2", "sw"), ("newsuite_jp", "ja"), ("newsuite_en_cot_th", "th"),
        # codes that are words, or stand for something else
        ("newsuite_it", "it"), ("newsuite_ar_test", "ar"), ("answer_yes_no", None),
        ("is_it_true", None), ("to_be_or_not_to_be", None),
        ("prove_it_in_steps", None), ("cs_algorithms", None), ("applied_ml_questions", None),
        ("no_robots", None), ("my_suite", None),
        ("self-training-nn-networks", None), ("lsat_lr", None), ("egy_msa", None), ("newsuite_ES", None),
        # languages of computers
        ("humaneval_cs", None), ("humaneval_lua", None), ("multiple-cs", None), ("multipl_e_lua", None), ("code2text_go", None),
        ("mbpp_cs", None), ("qa_java", None),
        # English that names a language
        ("quiz_french_history", None), ("chinese_remainder_theorem", None), ("qa_italian_english_keyboard", "it"),
        # nothing
        ("", None), ("-", None), ("hi__", "hi"), ("日本語", None),
    ],
)  # fmt: skip
def test_the_rule_holds_for_suites_that_nobody_has_seen(name: str, language: str | None) -> None:
    assert from_task_name(name) == language


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [
        ("mt_en-de", "en", "de"), ("mt_eng_Latn-hin_Deva", "en", "hi"),
        ("mt_hi_to_en", "hi", "en"), ("mt_hin_Deva_eng_Latn_v2", "hi", "en"),
        ("en2de_news", "en", "de"), ("mt_ca-es", "ca", "es"),
        ("mt_swahili_to_german", "sw", "de"), ("mt_pt_BR-en_US", "pt", "en"),
        ("wmt24pp_en-ca_ES", "en", "ca"), ("suite_en_it", "en", "it"), ("salt_eng-nyn", "en", "nyn"), ("mt_zh_hi", "zh", "hi"),
    ],
)  # fmt: skip
def test_two_languages_side_by_side_are_a_pair(name: str, source: str, target: str) -> None:
    found = read_task_name(name)
    assert found is not None
    assert found.pair == (source, target)
    assert [from_task_name(name, (), pair) for pair in ("target", "source", "off")] == [target, source, None]  # type: ignore[arg-type]


def test_of_two_codes_the_second_may_be_a_region_unless_other_tasks_say_that_it_is_none() -> None:
    for name in ("fleurs_gl_es", "qa_eu_es", "mmlu_nl_be", "qa_fr_ca", "mt_ca-es", "qa_gl_es_law"):
        found = read_task_name(name)
        assert found is not None
        assert found.pair is not None
        assert found.may_be_region
    for name in ("mlqa_en_es", "mt_en-hi", "mt_en_to_es", "en2es", "mt_eng_Latn-spa_Latn", "mt_english_spanish", "qa_pt_br"):
        found = read_task_name(name)
        assert found is not None
        assert not found.may_be_region
    suite = Siblings(["suite_en_de", "suite_en_es", "suite_en_zh"])
    assert read_task_name("suite_en_es", suite) == NamedLanguage("es", (9, 11), True, ("en", "es"))


def test_other_tasks_support_a_doubtful_code_or_speak_against_it() -> None:
    languages = Siblings([f"unseen_{code}_biology" for code in ("ar", "de", "fr", "id", "vi")])
    abbreviations = Siblings([f"unseen_{part}_biology" for part in ("ar", "lr", "rc", "id", "math")])
    alone = Siblings(["unseen_ar_biology"])
    for code in ("ar", "id"):
        start = len("unseen_")
        assert read_task_name(f"unseen_{code}_biology", languages) == NamedLanguage(code, (start, start + 2), True)
        assert read_task_name(f"unseen_{code}_biology", abbreviations) is None
        assert read_task_name(f"unseen_{code}_biology", alone) is None
    obscure = Siblings(["blimps_apu", "blimps_deu", "blimps_hin", "blimps_vie"])
    assert read_task_name("blimps_apu", obscure) == NamedLanguage("apu", (7, 10), True)
    assert read_task_name("blimps_apu", alone) is None
    assert read_task_name("evals_cs", Siblings(["evals_cs", "evals_de", "evals_fr", "evals_py"])) is None


def test_an_uncertain_code_says_that_it_is() -> None:
    nothing = Siblings()
    for name, certain in {
        "newsuite_it": False,
        "newsuite_hi": True,
        "newsuite_ita_Latn": True,
        "newsuite_italian": True,
    }.items():
        found = read_task_name(name, nothing)
        assert found is not None
        assert found.certain is certain


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("clas_xnli_hi", "clas_xnli"), ("include_base_44_hindi_few_shot_en_stem", "include_base_44_few_shot_en_stem"),
        ("mgsm_en_cot_th", "mgsm_en_cot"), ("mgsm_en_cot_en", "mgsm_en_cot"), ("belebele_hin_Deva", "belebele"),
        ("mmmlu_pt_br_virology", "mmmlu_virology"), ("flores_eng_Latn-hin_Deva", "flores_eng_Latn"), ("mlqa_en_en", "mlqa_en"),
        ("mlqa_en_zh", "mlqa_en"), ("arc_easy", "arc_easy"), ("xnli_zh", "xnli"),
    ],
)  # fmt: skip
def test_what_is_left_of_a_name_is_the_same_in_all_languages(name: str, family: str) -> None:
    assert without_language(name) == family


def test_the_index_reads_folders_of_users_and_passes_over_what_is_no_task(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "base.yaml").write_text("tag: [mine, ours]\ndoc_to_text: !function utils.text\n")
    (tmp_path / "sub" / "one.yaml").write_text("include: ../base.yaml\ntask: one_hi\n")
    (tmp_path / "sub" / "two.yaml").write_text("include: ../base.yaml\ntask: two_hi\ntag: mine\n")
    (tmp_path / "group.yaml").write_text("group: both\ntask:\n  - one_hi\n  - task: two_hi\n  - mine\n")
    (tmp_path / "loop.yaml").write_text("include: loop.yaml\ntask: never\n")
    for name, content in {"list": "- 1\n", "bad": "task: [\n", "empty": "", "binary": "\0"}.items():
        (tmp_path / f"{name}.yaml").write_text(content)
    index = read_index([tmp_path], defaults=False)
    assert list(index.members) == ["both", "mine", "one_hi", "ours", "two_hi"]
    assert index.tasks("both") == ["one_hi", "two_hi"]
    assert index.tasks("mine") == ["one_hi", "two_hi"]
    assert index.match("*_hi") == ["one_hi", "two_hi"]
