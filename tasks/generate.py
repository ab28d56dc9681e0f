"""Writes the task and group YAML files beside it: what a task says in its language, and nothing else.

    python tasks/generate.py            # write
    python tasks/generate.py --check    # exit 1 and say which files are missing, different or left over

What tasks share is in the templates `_*_yaml`, which are written by hand.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lm_eval_clas.texts.corpora import BENCH_LANGUAGES, MINI_LANGUAGES, XNLI_LANGUAGES, XQUAD_LANGUAGES
from lm_eval_clas.texts.prompt_words import WORDS

FOLDER = Path(__file__).resolve().parent
HEADER = "# Made by tasks/generate.py, do not edit.\n"


QA_METRICS = ("exact_match", "f1", "f1_lang")
NLI_METRICS = ("acc",)
GOLD_METRICS = ("nats_per_byte", "gold_rank")
OPEN_METRICS = ("in_language", "repetition")
_IN_NAMES = {"bo": "bod"}  # whoever reads a task's name takes `bo` for a word, and not for Tibetan


def qa(language: str) -> str:
    """The prompt of a question over a passage."""
    words = WORDS[language]
    prompt = f"{words.context} {{{{context|trim}}}}\n{words.question} {{{{question|trim}}}}\n{words.answer}"
    return f"doc_to_text: {_quoted(prompt)}\n"


def nli(language: str) -> str:
    """The prompt of a sentence pair and its choices, in the order of the labels."""
    words = WORDS[language]
    prompt = f"{{{{premise|trim}}}}\n{words.question} {{{{hypothesis|trim}}}} {words.ask}\n{words.answer}"
    return f"doc_to_text: {_quoted(prompt)}\ndoc_to_choice: {_quoted(words.choices)}\n"


def open_question(language: str) -> str:
    """The prompt of a question alone. What a model goes on to ask itself, after its answer, is none of it."""
    words = WORDS[language]
    until = _quoted(["\n\n", f"\n{words.question}"])
    prompt = f"{words.question} {{{{question|trim}}}}\n{words.answer}"
    return f"doc_to_text: {_quoted(prompt)}\ngeneration_kwargs:\n  until: {until}\n  max_gen_toks: 64\n  do_sample: false\n"


def bare_question(language: str) -> str:
    """A question with nothing around it, as CLaS-Bench asks it."""
    return 'doc_to_text: "{{question|trim}}"\n'


def task(name: str, template: str, data: str, prompt: str) -> str:
    """A task: its name, the data of its language, and its prompt."""
    return f"{HEADER}include: ../{template}\ntask: {name}\n{data}\n{prompt}"


def group(name: str, members: list[str], metrics: tuple[str, ...], alias: str = "") -> str:
    """A group: its members, and the mean of each metric over them, every language counting the same."""
    lines = [f"group: {name}", *([f"group_alias: {_quoted(alias)}"] if alias else []), "task:"]
    lines += [f"  - {member}" for member in members]
    lines += ["aggregate_metric_list:"] if metrics else []
    for metric in metrics:
        lines += [f"  - metric: {metric}", "    aggregation: mean", "    weight_by_size: false"]
    return HEADER + "\n".join([*lines, "metadata:", "  version: 1.0", ""])


def files() -> dict[str, str]:
    """All generated files: path below this folder, and text."""
    made: dict[str, str] = {}

    def add(folder: str, name: str, text: str) -> None:
        made[f"{folder}/{name}.yaml"] = text

    for kind, metrics in (("xnli", NLI_METRICS), ("xnli_gold", GOLD_METRICS)):
        for split in ("test", "dev", "tune"):
            name, template = _named(kind, split), f"_{kind}_{split}_yaml"
            for lang in XNLI_LANGUAGES:
                add("xnli", f"{name}_{lang}", task(f"{name}_{lang}", template, f"dataset_name: {lang}", nli(lang)))
            add("xnli", name, group(name, [f"{name}_{lang}" for lang in XNLI_LANGUAGES], metrics))

    for kind, metrics in (("xquad", QA_METRICS), ("xquad_gold", GOLD_METRICS)):
        for split in ("test", "tune"):
            name, template = _named(kind, split), f"_{kind}_{split}_yaml"
            for lang in XQUAD_LANGUAGES:
                add("xquad", f"{name}_{lang}", task(f"{name}_{lang}", template, f"dataset_name: xquad.{lang}", qa(lang)))
            add("xquad", name, group(name, [f"{name}_{lang}" for lang in XQUAD_LANGUAGES], metrics))

    for name, template, prompt, metrics in (
        ("clas_mini_qa", "_mini_qa_yaml", qa, QA_METRICS),
        ("clas_mini_nli", "_mini_nli_yaml", nli, NLI_METRICS),
    ):
        for lang in MINI_LANGUAGES:
            data = f"dataset_kwargs:\n  mini_language: {lang}"
            add("mini", f"{name}_{lang}", task(f"{name}_{lang}", template, data, prompt(lang)))
        add("mini", name, group(name, [f"{name}_{lang}" for lang in MINI_LANGUAGES], metrics, f"{name} (smoke test)"))
    for kind, languages, prompt in (("open", MINI_LANGUAGES, open_question), ("bench", BENCH_LANGUAGES, bare_question)):
        # Questions in the language that is asked for, and English ones that are to be answered in another.
        others = tuple(lang for lang in languages if lang != "en")
        for name, asked, questions in ((f"clas_{kind}", languages, None), (f"clas_{kind}_force", others, "en")):
            members = {f"{name}_{_IN_NAMES.get(lang, lang)}": lang for lang in asked}
            for member, lang in members.items():
                data = f"dataset_kwargs:\n  question_language: {_code(questions or lang)}\n  asked_language: {_code(lang)}"
                add(kind, member, task(member, f"_{kind}_yaml", data, prompt(questions or lang)))
            add(kind, name, group(name, list(members), OPEN_METRICS))
    add("mini", "clas_mini", group("clas_mini", ["clas_mini_qa", "clas_mini_nli"], (), "clas_mini (smoke test)"))
    return made


def _named(kind: str, split: str) -> str:
    """A group: the test split is meant where a name does not say another."""
    return f"clas_{kind}" if split == "test" else f"clas_{kind}_{split}"


def _code(language: str) -> str:
    """A language's code in YAML, where a bare `no` is a truth value."""
    return f'"{language}"' if language == "no" else language


def _quoted(value: str | list[str]) -> str:
    """A string or list in YAML; JSON is a part of it."""
    return json.dumps(value, ensure_ascii=False)


def main() -> int:
    made = files()
    there = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.glob("*/*.yaml")}
    left_over = sorted(there.keys() - made.keys())
    stale = [name for name, text in made.items() if name not in there or there[name].read_text("utf-8") != text]
    if "--check" in sys.argv[1:]:
        for name in stale + left_over:
            print(f"out of step with {Path(__file__).name}: {name}", file=sys.stderr)
        return 1 if stale or left_over else 0
    for name in left_over:
        there[name].unlink()
    for name in stale:
        (FOLDER / name).parent.mkdir(exist_ok=True)
        (FOLDER / name).write_text(made[name], "utf-8")
    print(f"{len(made)} files, {len(stale)} written, {len(left_over)} removed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
