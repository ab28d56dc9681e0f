"""What language the names of tasks in the installed harness give, by a rule for each suite: a referee for the package's rule.

Written from the suites' own files and apart from the package's rule, which knows no suite. `code` and `name` are what the suite
has in that place; `pair` are a source and a target; `says` is a language that the suite's name says plainly; `may` is a
language that is no error where the name says none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

import langcodes

_CODE = "(?P<code>[a-z]{2,3})"
_NAME = "(?P<name>[a-z]+(?:_macedonian)?)"
_N = r"(_prompt_\d|_p\d)"

PLAIN = [
    rf"belebele_{_CODE}_[A-Z][a-z]{{3}}",
    rf"belebele_{_CODE}{_N}",
    rf"include_base_44_{_NAME}(_.*)?",
    rf"global_mmlu_(full_)?{_CODE}(_.*)?",
    rf"global_piqa_(non)?parallel_(cloze|generation)_{_CODE}_[a-z]{{4}}(_[a-z]+)?",
    rf"mmmlu_{_CODE}_[a-z]{{2}}(_.*)?",
    rf"mmlu_prox(_lite)?_{_CODE}(_.*)?",
    r"mmlu_(?P<code>[a-z]{2})_llama(_.*)?",
    rf"(m_mmlu|arc|hellaswag|arc_challenge_mt)_{_CODE}",
    rf"truthfulqa_{_CODE}_mc[12]",
    rf"arc_{_CODE}_(easy|challenge)",
    rf"truthfulqa_{_CODE}(_gen)?",
    rf"flores_{_CODE}",
    rf"truthfulqa-multi_(gen|mc1|mc2)_{_CODE}",
    rf"xnli_{_CODE}(_mt|_native|_mt_native|_spanish_bench)?",
    rf"(xquad|xcopa|xstorycloze|xwinograd|paws|mela|tydiqa_goldp|copa|piqa|wnli|openbookqa)_{_CODE}(_spanish_bench)?",
    rf"mgsm_(direct|en_cot|native_cot)_{_CODE}(_spanish_bench)?",
    rf"eus_exams_{_CODE}(_.*)?",
    rf"multiblimp_{_CODE}",
    rf"lambada_openai_mt(_stablelm)?_{_CODE}",
    rf"afrimmlu_(direct|translate)_{_CODE}{_N}",
    rf"afrimgsm(_cot)?(_translate)?_{_CODE}{_N}",
    rf"afrixnli(_translate)?_{_CODE}{_N}",
    rf"afrixnli_(en_direct|manual_direct|native_direct|translate|manual_translate)_{_CODE}",
    rf"(sib|afrisenti|afriqa|afridiacritics|masakhaner|masakhanews|masakhapos|injongointent|naijarc|nollysenti)_{_CODE}{_N}",
    rf"uhura-arc-easy_{_CODE}{_N}",
    rf"openai_mmlu_{_CODE}{_N}",
    rf"xlsum_{_NAME}{_N}",
    rf"xlsum_{_CODE}",
    rf"(norsumm|norcommonsenseqa|noridiom|noropenbookqa|nrk_quiz_qa|nortruthfulqa_(gen|mc))_{_CODE}{_N}?",
    rf"bhs__?{_NAME}(__.*)?",
    rf"crows_pairs_{_NAME}(_.*)?",
    rf"toksuite_(math_)?{_NAME}(_.*)?",
    rf"indicparam_{_NAME}(_mix)?",
    rf"(indicxnli|boolqa|parafrases|summarization|siqa|eqbench|ifeval|headqa|careqa|glianorex|common_voice|cocoteros)_{_CODE}",
    r"pisa_(?P<code>de|en|es|fr|it)(_llm_judged)?",
    rf"copal_{_CODE}(_.*)?",
    rf"blimp_{_CODE}(__.*)?",
    rf"bertaqa_{_CODE}(_mt_.*)?",
    rf"phrases_{_CODE}",
    rf"uncheatable_eval_\w+_{_NAME}",
    rf"longbench_(multifieldqa|passage_retrieval)_{_CODE}(_e)?",
    r"hrm8k(_\w+)?_(?P<code>en)",
    rf"agieval_(logiqa|sat)_{_CODE}(_without_passage)?",
    rf"agieval_{_CODE}",
    rf"paloma_c4_{_CODE}",
    rf"(non_greedy|option_order|prompt)_robustness_agieval_(logiqa|sat)_{_CODE}",
    r"infinitebench_\w+_(?P<code>en|chn)",
    rf"mmlu_\w+_generative_{_NAME}",
    rf"mmlu_redux_{_NAME}(_generative)?",
    r"(?P<name>french|spanish|catalan|galician|portuguese)_bench",
    rf"{_NAME}_bench_(?!flores).*",
    r"(?P<name>basque)(_bench|-glue)",
    r"(?P<name>icelandic)_winogrande",
    rf"lambada_{_NAME}",
    r"(?P<name>japanese)_leaderboard",
    r"AraDiCE_\w+_(?P<code>eng)",
    r"(?P<name>arabic)_\w+",
    r"(?P<name>bangla)_\w+",
]
_ONE = "[a-z]{2,3}(?:_[A-Z][a-z]{3})?"
PAIRS = [
    rf"(flores|ntrex)_(?P<source>{_ONE})-(?P<target>{_ONE}){_N}?",
    rf"mafand_(?P<source>{_ONE})-(?P<target>{_ONE}){_N}?",
    rf"salt_(?P<source>{_ONE})-(?P<target>{_ONE}){_N}",
    rf"[a-z]+_bench_flores_(?P<source>{_ONE})-(?P<target>{_ONE})",
    rf"(wmt1[46]|iwslt2017|wmt)-(?P<source>{_ONE})-(?P<target>{_ONE})(-t5-prompt)?",
    rf"mlqa_(?P<source>{_ONE})_(?P<target>{_ONE})",
    rf"tatoeba_(?P<source>{_ONE})_(?P<target>{_ONE}){_N}?",
    rf"phrases_(?P<source>{_ONE})-(?P<target>{_ONE})",
]
# Names that say nothing plainly, and what is true of them.
MAY = {
    r"AraDiCE.*": "ar arz apc",
    r"(darija|egy)mmlu.*": "ar ary arz",
    r"darija_.*": "ary ar",
    r"trans(lation|literation)_.*": "ary ar en fr",
    r"ja_leaderboard.*": "ja",
    r"ru_.*": "ru",
    r"(aclue|cmmlu|ceval|tmlu|tmmluplus).*": "zh",
    r"agieval_gaokao_(chinese|english)": "zh en",
    r"kmmlu.*|click.*|kbl.*": "ko",
    r"greekmmlu.*": "el",
    r"turkishmmlu.*": "tr",
    r"arabicmmlu.*": "ar",
    r"eus_\w+": "eu",
    r"uyghur.*": "ug",
    r"evalita.*": "it",
    r"bigbench_(english_)?russian_proverbs.*": "ru en",
    r"bigbench_.*_spanish_.*": "es",
    r"bigbench_english_proverbs.*": "en",
    r"bigbench_english_russian.*": "en ru",
    r"bigbench_.*hindi.*": "hi",
    r"bigbench_.*_german_.*": "de sv",
    r"bigbench_kannada_.*": "kn",
    r"bigbench_.*_russian_.*": "ru",
    r"bigbench_persian_.*": "fa",
    r"bigbench_polish_.*": "pl",
    r"bigbench_swahili_.*": "sw en",
    r"bigbench_swedish_.*": "sv de",
    r"esbbq_.*": "es",
    r"cabbq_.*": "ca",
    r"xnli_va|truthfulqa_va": "ca",
    r"zhoblimp.*|pisa_ch.*": "zh",
}
_WRITTEN = {"jp": "ja", "cn": "zh", "chn": "zh", "va": "ca", "cls": "sa"}


@dataclass(frozen=True)
class Truth:
    """What a name says: the codes that are right, of which the last is the target of a pair; or, if not plain, may be said."""

    plain: bool
    right: tuple[str, ...]


@cache
def _code(code: str) -> str | None:
    code = _WRITTEN.get(code, code.split("_")[0])
    try:
        language = langcodes.Language.get(code)
        return language.prefer_macrolanguage().language if language.is_valid() else None
    except langcodes.tag_parser.LanguageTagError:
        return None


@cache
def _name(name: str) -> str | None:
    names = {"north_macedonian": "mk", "farsi": "fa", "pidgin": "pcm", "tagalog": "fil", "swahili": "sw", "bodo": "brx"}
    if name in names:
        return names[name]
    try:
        found = langcodes.find(name)
    except LookupError:
        return None
    right = (found.display_name("en").casefold(), "bengali", "oriya", "bangla", "kirundi")
    return found.prefer_macrolanguage().language if name in right else None


def truth(task: str) -> Truth:
    """What the name of a task of the harness says."""
    for pattern in PAIRS:
        if match := re.fullmatch(pattern, task):
            source, target = _code(match["source"]), _code(match["target"])
            if source and target:
                return Truth(True, (source, target))
    for pattern in PLAIN:
        if match := re.fullmatch(pattern, task):
            parts = match.groupdict()
            code = _code(parts["code"]) if parts.get("code") else _name(parts["name"])
            if code:
                return Truth(True, (code,))
    for pattern, codes in MAY.items():
        if re.fullmatch(pattern, task):
            return Truth(False, tuple(codes.split()))
    return Truth(False, ())
