"""What README and docs/ tell people to type exists: commands, options, arguments of the model, names to import.

Nothing is run. Commands are read from code blocks and given to the parsers of `clas` and `lm_eval`.
"""

from __future__ import annotations

import ast
import inspect
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from typer.main import get_command

import lm_eval_clas
from lm_eval_clas.commands import cli

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(page for page in DOCS.rglob("*.md") if DOCS / "results" not in page.parents),
]
CLAS: Any = get_command(cli.app)

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:(?<=\n\n)|\A)((?: {4}.*\n|\n)+)")
_SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
# Of vLLM, which is not installed everywhere: what the pages name of its engine's arguments and of `vllm serve`.
_VLLM = frozenset(
    (
        *("data_parallel_size", "distributed_executor_backend", "enforce_eager", "kv_cache_memory_bytes", "max_model_len"),
        *("max_num_batched_tokens", "max_num_seqs", "model_impl", "tensor_parallel_size", "pipeline_parallel_size", "port"),
    )
)
_SERVE = frozenset(f"--{name.replace('_', '-')}" for name in (*_VLLM, "dtype", "config", "grpc", "root_path"))
_SUBSTITUTION = re.compile(r"\$\(([^()]*)\)")
_SEPARATORS = {";", "&&", "||", "|", "&", "(", ")"}


@dataclass(frozen=True)
class Block:
    """A code block of a page; an indented one has no language."""

    page: Path
    language: str
    text: str


@cache
def _blocks() -> tuple[Block, ...]:
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        found += [Block(page, language, body) for language, body in _FENCE.findall(text)]
        rest = _FENCE.sub("", text)
        if page.name == "README.md":  # the pages of the site use fences only
            found += [Block(page, "", inspect.cleandoc("\n" + body)) for body in _INDENTED.findall(rest) if body.strip()]
    return tuple(found)


def _prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def _words_of(line: str) -> Iterator[list[str]]:
    """The commands of a line of shell, as words; what is substituted into them comes on its own."""
    while found := _SUBSTITUTION.search(line):
        yield from _words_of(found[1])
        line = line[: found.start()] + "SUBSTITUTED" + line[found.end() :]
    lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>()")
    lexer.whitespace_split = True
    words: list[str] = []
    skip = False
    for word in [*lexer, ";"]:
        if word in _SEPARATORS:
            while words and words[0] in ("do", "then", "else"):
                words = words[1:]
            if words:
                yield words
            words = []
        elif word in (">", ">>", "<"):
            skip = True
        elif skip:
            skip = False
        else:
            words.append(word)


def _commands(name: str) -> list[Any]:
    """Every command in a code block that starts with `name`: its words, with the page as the case's id."""
    cases = []
    for block in _blocks():
        if block.language not in ("bash", ""):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            if not re.search(rf"(?<![\w./-]){re.escape(name)}(?![\w./-])", line):
                continue
            for words in _words_of(line):
                if words[0] == name:
                    cases.append(pytest.param(words, id=f"{block.page.stem}: {' '.join(words)[:60]}"))
    return cases


def _model_args(value: str) -> dict[str, str]:
    return dict(part.partition("=")[::2] for part in value.split(",") if not part.startswith("$"))


@cache
def _known_arguments() -> frozenset[str]:
    from lm_eval.models.huggingface import HFLM

    from lm_eval_clas import CLASLM
    from lm_eval_clas.harness.fast_lm import FastLM

    classes = (CLASLM, FastLM, HFLM)
    names = {name for one in classes for name in inspect.signature(one.__init__).parameters}
    return frozenset(names - {"self", "kwargs"} | {"tp_plan"} | _VLLM)  # which the harness has from 0.4.12 on


def _known_values() -> dict[str, tuple[str, ...]]:
    from lm_eval_clas.steering import options

    scopes = {
        "specific_scope": options.SpecificScope,
        "partial_scope": options.PartialScope,
    }
    return {name: get_args(values) for name, values in scopes.items()} | {
        "method": options.METHOD_NAMES,
        "unseen": ("off", "shared"),
        "scoring": ("fast", "stock"),
    }


def _check_arguments(arguments: dict[str, str]) -> None:
    assert set(arguments) <= _known_arguments(), f"hf-clas takes no {set(arguments) - _known_arguments()}"
    for name, values in _known_values().items():
        given = arguments.get(name, values[0])
        assert given in (*values, "") or given.startswith("$"), f"{name}={given}"


@cache
def _lm_eval_options() -> frozenset[str]:
    from lm_eval._cli import HarnessCLI

    run = HarnessCLI()._subparsers.choices["run"]
    return frozenset(option for action in run._actions for option in action.option_strings)


@pytest.mark.parametrize("words", _commands("clas"))
def test_a_command_of_clas_is_understood(words: list[str]) -> None:
    assert words[1] in CLAS.commands, f"clas has no command {words[1]}"
    if words[1] == "eval":
        _check_lm_eval(["lm_eval", *words[2:]])
        return
    command = CLAS.commands[words[1]]
    options = {name for parameter in command.params for name in parameter.opts}
    options |= _SERVE if words[1] == "serve" else frozenset()
    given = {word.partition("=")[0] for word in words[2:] if word.startswith("--")} - {"--help"}
    assert given <= options, f"clas {words[1]} has no {given - options}"
    if "--help" not in words:
        command.make_context(words[1], words[2:])  # raises for what is missing, left over or of the wrong kind


def test_git_ignores_what_the_commands_of_the_pages_write() -> None:
    """In a checkout, what somebody tried does not show among the changes; what ships does."""
    written = {Path("masks/gemma-3-270m-new")}
    for words in (case.values[0] for case in (*_commands("clas"), *_commands("lm_eval"))):
        written |= {Path(words[i + 1]) for i, word in enumerate(words) if word in ("--out", "--output_path", "--plot")}
    for command in CLAS.commands.values():
        written |= {value for value in (parameter.default for parameter in command.params) if isinstance(value, Path)}
    asked = [one.as_posix() if one.suffix == ".png" else f"{one.as_posix()}/file" for one in written | {Path("studies/NAME")}]
    git = ("git", "check-ignore", "--no-index", "--verbose", "--non-matching")
    done = subprocess.run([*git, *asked, "masks/gemma-3-270m/new"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode == 128:
        pytest.skip("not a git checkout")
    kept = [line.partition("\t")[2] for line in done.stdout.splitlines() if line.startswith("::") or ":!" in line]
    assert kept == ["masks/gemma-3-270m/new"]


@pytest.mark.parametrize("words", _commands("lm_eval"))
def test_a_command_of_lm_eval_is_understood(words: list[str]) -> None:
    _check_lm_eval(words)


def _check_lm_eval(words: list[str]) -> None:
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given <= _lm_eval_options(), f"lm_eval run has no {given - _lm_eval_options()}"
    if "hf-clas" in words and "--model_args" in words:
        _check_arguments(_model_args(words[words.index("--model_args") + 1]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_code_in_the_text_names_what_exists(page: Path) -> None:
    """Inline code: `name=value` is an argument of hf-clas, `--option` an option, `clas name` a command."""
    parameters = [parameter for command in CLAS.commands.values() for parameter in command.params]
    every = {name for parameter in parameters for name in (*parameter.opts, *parameter.secondary_opts)}
    for span in _SPAN.findall(_prose(page)):
        if re.fullmatch(r"[a-z_]+=\S*", span):
            _check_arguments(_model_args(span))
        elif found := re.match(r"clas ([a-z]\S*)", span):
            assert found[1] in CLAS.commands, f"`{span}`"
            options = {name for parameter in CLAS.commands[found[1]].params for name in parameter.opts}
            assert set(re.findall(r"--[a-z-]+", span)) - {"--help"} <= options, f"`{span}`"
        elif found := re.match(r"--[a-z_-]+", span):
            assert found[0] in every | _lm_eval_options() | _SERVE, f"`{span}`"


@pytest.mark.parametrize("block", [block for block in _blocks() if block.language == "python" or "\nfrom lm_eval_clas" in
                                   f"\n{block.text}"], ids=lambda block: block.page.stem)  # fmt: skip
def test_python_imports_public_names(block: Block) -> None:
    for node in ast.walk(ast.parse(block.text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lm_eval_clas"):
            assert node.module == "lm_eval_clas"
            assert {alias.name for alias in node.names} <= set(lm_eval_clas.__all__)


@pytest.mark.parametrize("block", [block for block in _blocks() if "\nevaluate:" in block.text], ids=lambda b: b.page.stem)
def test_recipes_are_valid(block: Block) -> None:
    from lm_eval_clas.study.recipe import StudyRecipe

    StudyRecipe.model_validate(yaml.safe_load(block.text))


def test_the_command_reference_has_every_command_and_option() -> None:
    page = (DOCS / "commands.md").read_text(encoding="utf-8")
    for name, command in CLAS.commands.items():
        section = page.partition(f"\n## clas {name}\n")[2].partition("\n## ")[0]
        assert section, name
        for parameter in command.params:
            if parameter.param_type_name == "option" and parameter.name != "help":
                assert f"`{parameter.opts[0]}`" in section, (name, parameter.opts)


def test_the_options_page_has_every_argument_of_the_model() -> None:
    from lm_eval_clas import CLASLM

    page = (DOCS / "options.md").read_text(encoding="utf-8")
    for name in inspect.signature(CLASLM.__init__).parameters:
        if name not in ("self", "kwargs"):
            assert f"\n| `{name}` |" in page, name


def test_both_references_are_current() -> None:
    pytest.importorskip("griffe")
    done = subprocess.run([sys.executable, str(DOCS / "mkdocs" / "reference.py"), "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


ARCHITECTURE = DOCS / "architecture.md"
# What files and folders are named from, on the page about the code.
_FROM = (ROOT, ROOT / "lm_eval_clas")
_ENDINGS = re.compile(r"\.(py|pth|md|svg|toml|j2|css|yaml|json)$")


def _named_on_the_page() -> list[str]:
    return list(dict.fromkeys(_SPAN.findall(_prose(ARCHITECTURE))))


def test_files_that_the_page_about_the_code_names_exist() -> None:
    named = [span for span in _named_on_the_page() if " " not in span and ("/" in span or _ENDINGS.search(span))]
    assert len(named) > 60
    for one in named:
        assert any((base / one).exists() for base in _FROM) or one == "__init__.py", one


def test_functions_and_tests_that_the_page_about_the_code_names_exist() -> None:
    """`code_in_a_row` with a file: a table's `file.py` (`name`), a test `in` its file, and every other name somewhere."""
    page = ARCHITECTURE.read_text(encoding="utf-8")
    for file, names in re.findall(r"`([\w/]+\.py)` \(((?:`\w+`(?:, )?)+)\)", page):
        text = next((base / file).read_text(encoding="utf-8") for base in _FROM if (base / file).is_file())
        for name in re.findall(r"`(\w+)`", names):
            assert re.search(rf"^\s*(?:def |class )?{name}\b", text, re.MULTILINE), f"{name} in {file}"
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_\w+)`", page):
        assert f"def {name}(" in tests, name
    code = tests + "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "lm_eval_clas").rglob("*.py"))
    for name in re.findall(r"`(_?[A-Z][A-Za-z_]+)`", page):
        assert re.search(rf"\b{name}\b", code), name


def test_every_folder_is_on_the_page_about_the_code() -> None:
    """In the picture, and with a file of its own: in a walk, in the table, or in how to add something."""
    picture, named = (DOCS / "folders.svg").read_text(encoding="utf-8"), _named_on_the_page()
    for path in (ROOT / "lm_eval_clas").iterdir():
        if (path / "__init__.py").is_file():
            assert f">{path.name}/<" in picture, path.name
            assert any(span.startswith(f"{path.name}/") for span in named), path.name


@pytest.mark.parametrize("script", ["folders.py", "gpu_page.py"])
def test_what_scripts_make_of_the_docs_is_current(script: str) -> None:
    command = [sys.executable, str(DOCS / "mkdocs" / script), "--check"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr or f"run python docs/mkdocs/{script}"


def test_messages_in_troubleshooting_are_those_of_the_code() -> None:
    """Each heading that quotes an error or a warning: its words, apart from names in capitals and quotes, are in the code."""
    said = "\n".join(_strings())
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (?:Error: |(?=hf-clas: ))(.*)$", page, re.MULTILINE)
    assert len(headings) > 10
    for heading in headings:
        for part in re.split(r"'[^']+'|\b[A-Z]{2,}\b|\bN\b|clas_config\.json|google/xquad", heading.replace("SHA-256", "\0")):
            part = part.replace("\0", "SHA-256").strip()
            if len(part) > 3:
                assert any(a in said and b in said for a, b in _halves(part)), f"no message says '{part}'"


def _halves(text: str) -> list[tuple[str, str]]:
    """A text whole, and cut in two at every space: where a message puts in a variable, the code has it in two strings."""
    return [(text, ""), *((text[: space.start()], text[space.start() :]) for space in re.finditer(" ", text))]


def _strings() -> Iterator[str]:
    """Every string in the package, the variable parts of f-strings left out."""
    for file in (ROOT / "lm_eval_clas").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_code_in_the_readme_fits_where_it_is_shown() -> None:
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    code = [line[4:] for line in lines if line.startswith("    ")]
    assert len(code) > 30
    assert [line for line in code if len(line) > 96] == []  # what GitHub shows of a line before it has to be scrolled


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_tables_have_headings(page: Path) -> None:
    assert not re.findall(r"^\|[ |]*\|\n\| *:?-", page.read_text(encoding="utf-8"), re.MULTILINE)
