"""Scores of short answers, worked out by hand."""

from __future__ import annotations

import itertools
import re
import string
import unicodedata
from collections import Counter

import pytest

from lm_eval_clas.texts.metrics import exact_match, f1, f1_lang, lang_tokens

ENGLISH = [
    "Super Bowl 50",
    "the Super Bowl",
    "The super-bowl!",
    "a golden anniversary",
    "Denver Broncos, of the AFC",
    "10th of February, 2016",
    "February 7, 2016",
    "“Levi's” Stadium",
    "an",
    "...",
    "",
]


def squad_f1(prediction: str, gold: str) -> float:
    """The official v1.1 computation, step by step."""

    def tokens(text: str) -> list[str]:
        text = "".join(char for char in text.lower() if char not in set(string.punctuation))
        return re.sub(r"\b(a|an|the)\b", " ", text).split()

    predicted, expected = tokens(prediction), tokens(gold)
    same = sum((Counter(predicted) & Counter(expected)).values())
    if same == 0:
        return 0.0
    precision, recall = same / len(predicted), same / len(expected)
    return 2 * precision * recall / (precision + recall)


@pytest.mark.parametrize(("prediction", "gold"), list(itertools.product(ENGLISH, ENGLISH)))
def test_f1_is_squad_f1(prediction: str, gold: str) -> None:
    assert f1(prediction, [gold]) == pytest.approx(squad_f1(prediction, gold))


def test_squad_by_hand() -> None:
    assert exact_match("The Denver Broncos!", ["denver broncos"]) == 1.0
    assert exact_match("Denver Broncos", ["Broncos"]) == 0.0
    # 2 tokens of 3 and 2 of 2: precision 2/3, recall 1
    assert f1("Super Bowl 50", ["the Super Bowl"]) == pytest.approx(0.8)


def test_best_gold_counts() -> None:
    assert exact_match("Broncos", ["Denver Broncos", "the Broncos"]) == 1.0
    assert f1("Broncos", ["Denver Broncos", "the Broncos"]) == 1.0
    assert f1_lang("Broncos", ["Denver Broncos", "the Broncos"], "en") == 1.0


@pytest.mark.parametrize("golds", [[], "a string", ""])
def test_golds_must_be_a_list_of_answers(golds: list[str]) -> None:
    for score in (exact_match, f1, lambda prediction, golds: f1_lang(prediction, golds, "en")):
        with pytest.raises(ValueError, match="gold"):
            score("x", golds)


@pytest.mark.parametrize(
    ("language", "prediction", "gold", "score"),
    [
        # Chinese: 4 characters of 4, and of 6: 2*4 / (4+6)
        ("zh", "北京大学", "北京大学医院", 0.8),
        # nfl 冠 军 2015 年 | 2015 年 的 nfl 冠 军: 2*5 / (5+6); Latin and digits are one token each
        ("zh", "NFL冠军2015年", "2015年的NFL冠军", 10 / 11),
        # full-width digits and punctuation
        ("zh", "２０１５年。", "2015 年", 1.0),
        ("zh-Hant", "臺北", "臺北市", 0.8),
        # Thai: น้ํ|า|ต|ก against น้ํ|า (NFKC takes ำ apart, and its ring joins the consonant): 2*2 / (4+2)
        ("th", "น้ำตก", "น้ำ", 2 / 3),
        # ปี 2015 against 2015: ปี|2015 and 2015: 2*1 / (2+1)
        ("th", "ปี2015", "2015", 2 / 3),
        # Arabic: the article is a prefix, of both words
        ("ar", "المدينة القديمة", "مدينة قديمة", 1.0),
        # في|مدينة against مدينة: 2*1 / (2+1)
        ("ar", "في المدينة؟", "المدينة", 2 / 3),
        # Hindi: नई|दिल्ली against नई|दिल्ली|में, the danda is punctuation: 2*2 / (2+3)
        ("hi", "नई दिल्ली।", "नई दिल्ली में", 0.8),
        # German: grosse|mauer against grossen|mauer (articles gone, ß folded): 2*1 / (2+2)
        ("de", "die Große Mauer", "der GROSSEN Mauer", 0.5),
        ("de", "einem Hund", "Hund", 1.0),
        ("de-CH", "Strasse", "Straße", 1.0),
        ("es", "«Los Panthers»", "Panthers", 1.0),
        ("fr", "l\u2019Europe", "Europe", 1.0),
        # 2*1 / (2+1): d|europe against europe
        ("fr", "d'Europe", "l'Europe", 2 / 3),
        ("el", "ΤΗΣ ΠΟΛΗΣ", "πολης", 1.0),
        ("ro", "o carte", "carte", 1.0),
        ("vi", "của Việt Nam", unicodedata.normalize("NFD", "Việt Nam"), 1.0),
        ("tr", "İSTANBUL", "istanbul", 1.0),
        ("tr", "IĞDIR", "ığdır", 1.0),
        ("en", "“The” Broncos", "broncos", 1.0),
        ("en", "€5", "5", 1.0),
        # a spacing accent is no token
        ("en", "5 \u00b4", "5", 1.0),
        # no list of articles: nothing goes
        ("sw", "the end", "end", 2 / 3),
    ],
)
def test_f1_lang_by_hand(language: str, prediction: str, gold: str, score: float) -> None:
    assert f1_lang(prediction, [gold], language) == pytest.approx(score)
    assert f1_lang(gold, [prediction], language) == pytest.approx(score)


def test_squad_f1_cannot_see_parts_of_chinese() -> None:
    assert f1("北京大学", ["北京大学医院"]) == 0.0


def test_tokens() -> None:
    assert lang_tokens("สวัสดีปี 2015!", "th") == ["ส", "วั", "ส", "ดี", "ปี", "2015"]
    assert lang_tokens("用Python 3写", "zh") == ["用", "python", "3", "写"]
    assert lang_tokens("日本のアニメ", "ja") == ["日", "本", "の", "ア", "ニ", "メ"]
    assert lang_tokens("မြန်မာ", "my") == ["မြ", "န်", "မာ"]
    assert lang_tokens("क्षत्रिय", "hi") == ["क्षत्रिय"]
    assert lang_tokens("سالم والعراق", "ar") == ["سالم", "والعراق"]
    assert lang_tokens("ab\u200bc", "en") == ["abc"]


@pytest.mark.parametrize("language", ["th", "hi", "zh", "my", "km", "lo"])
def test_marks_are_never_torn_from_their_base(language: str) -> None:
    for text in ("น้ำท่วมที่ปิ่นเกล้า", "हिन्दी की किताबें", "ភាសាខ្មែរ", "ພາສາລາວ", "မြန်မာဘာသာ"):
        for token in lang_tokens(text, language):
            assert not unicodedata.category(token[0]).startswith("M")


def test_an_answer_of_articles_or_punctuation_keeps_them() -> None:
    assert f1_lang("a", ["A"], "en") == 1.0
    assert f1_lang("the", ["A"], "en") == 0.0
    assert f1_lang("+", ["+"], "en") == 1.0
    assert f1_lang("-", ["+"], "en") == 0.0
    assert f1_lang("", ["A"], "en") == 0.0


ANSWERS = [
    "北京大学 2015",
    "น้ำตก",
    "المدينة القديمة",
    "नई दिल्ली।",
    "die Große Mauer",
    "İstanbul'da",
    "the",
    "308",
    "—",
    "l'eau",
]


@pytest.mark.parametrize("language", ["ar", "bg", "de", "el", "en", "fr", "hi", "ja", "th", "tr", "vi", "zh"])
def test_identity_symmetry_and_range(language: str) -> None:
    for one, other in itertools.product(ANSWERS, ANSWERS):
        score = f1_lang(one, [other], language)
        assert 0.0 <= score <= 1.0
        assert score == f1_lang(other, [one], language)
    for answer in ANSWERS:
        assert f1_lang(answer, [answer], language) == 1.0
