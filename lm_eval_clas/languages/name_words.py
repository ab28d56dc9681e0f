"""Words and codes that stand in the names of tasks: which are languages, and which look like them. No task is named here."""

from __future__ import annotations

import re


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Codes

# Three-letter codes of languages without a two-letter one that parallel corpora and evaluation suites have (FLORES-200,
# SIB-200, NTREX, Masakhane). Of the other 7,000, most are three letters that stand for anything else.
IN_USE = _set(
    """
    ace ach acm acq aeb afb ajp apc arb arq ars ary arz ast awa ayr azb azj ban bbj bcl bem bho bjn brx bug ceb cjk ckb crh dik
    doi dyu ekk fil fon fur fuv gaz gom hne hsb ilo kab kac kam kbp kea khk kmb kmr knc kok lgg lij lmo ltg lua luo lus lvs mag
    mai min mni mos nds nso nus nyn ory pag pap pbt pcm pes plt prs quy raj sat scn shn swh szl taq teo tpi tum tzm umb uzn vec
    war ydd yue zsm
    """
)
# Of libraries (ISO 639-2/B): no task uses them, and they are words or abbreviations: GRE, PER, MAY, ...
LIBRARY = _set("alb arm bur chi fre geo ger gre ice mac may per rum slo")
# Stand for something else wherever anybody writes them: Modern Standard and Levantine Arabic in Arabic data (Malay and Western
# Pantar in ISO 639-3), and China or Switzerland (Chamorro). Only a script makes them languages.
SOMETHING_ELSE = _set("msa lev ch")
# Terms of the trade and English words that are codes of small languages, too.
TERMS = _set(
    """
    act all and app arc are art bbh bbq big bin bio but cot dev for gec gem gen gsm has how its key law llm low mcq med mix nih
    nli not npi nug num one org pro qqp rat raw sci sep sig sum tax the tok too tos two val wic yes
    """
)
WITHDRAWN = _set("in ji jw mo sh")  # old codes of id, yi, jv, ro, sr; `in` is a word in every second name
# What people write for a language although it is a country's code, and no language's. va: Valencian, which is Catalan.
COUNTRIES = {"jp": "ja", "cn": "zh", "cz": "cs", "chn": "zh", "va": "ca"}
# Codes that are English words or parts of names, and codes that mean something else in the trade: computer science, machine
# learning, machine translation, textual entailment, sentiment analysis, analytical reasoning, ...
DOUBTFUL = _set(
    """
    am an as at be do go ha he id is it me my no or so to us we
    aa ab ae ar av ba bi bm bo ca ce co cr cs cu cv ee ff fo fy ga gd gv ho hz ia ie ii io kg ki kj kl km kr ks kv kw la lb li
    ln lo lu mi ml mr ms mt na nb nd ng nr nv oc oj om os pa pi ps qu rm rn sa sc sd se sg si sm sn ss st su ta te ti tn ts tt
    ty ve vo wa za
    ace als ara arg ava ban bam bar ben bos cat ces cos dan dik div est fas fin fon ful fur gun hat ind kam kas kin lat lim lin
    lit log lua lug lus mag mai mal man mar min mon mos new nor pag pan pap pol ron run sag san sat sin som sot sun tam tan
    tar tat tel ton tum tur vec war
    """
)
# Of those, the languages that suites often have: at the end of a name, or beside another language, they may well be one.
COMMON = _set("am ar as be bs ca cs ga gd ha he id is it km lo ml mr ms mt my ne no om or pa ps sd si so st su ta te ti tn ts")
# Codes of scripts that names have in lower case, and that are no English words.
LOWER_SCRIPTS = _set(
    """
    arab armn beng cyrl deva ethi geor grek gujr guru hang hans hant hebr jpan khmr knda kore laoo latn mlym mtei mymr olck orya
    sinh taml telu tfng tibt
    """
)

# Words

# Make a phrase of what stands beside them: `yes_no`, `what_is_the_tao`.
ENGLISH = _set(
    """
    a about all an and any are as at be but by can do does for from had has have held how i if in into is it its may more my no
    not of off on one only or our out per same so some than that the their then there this to too two up us was we were what
    when where which who whose why will with without yes you your
    """
)
# Follow the name of a language where that says what is asked about, and not in which language: `french_history`.
SUBJECTS = _set(
    """
    architecture civilization cuisine culture cultures food geography government grammar history language law laws literature
    medicine music mythology people philosophy politics region regions revolution society traditions
    """
)
# Say of the name before them that it is a second language, which is not the text's: `italian_english_keyboard`.
MEANS = _set("accent keyboard keyboards layout script spelling")
# Where one of these stands, the languages are those of computers.
PROGRAMMING = _set("cpp csharp go golang java javascript js julia kotlin perl php py python rb rs ruby rust swift")
# Terms of English that have a language in them.
NO_LANGUAGE = re.compile("chinese_(remainder|room|whispers)|greek_letter|latin_square|polish_notation|arabic_numeral")
