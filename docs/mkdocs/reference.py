"""The two reference pages that are made from the code: the commands, and the options of `hf-clas`.

    python docs/mkdocs/reference.py            # writes docs/commands.md and docs/options.md
    python docs/mkdocs/reference.py --check    # exit 1 if they are not what this makes

They lie in the folder, and are not made while the site is built, so that links to them also work where the checkout is read.
Reading the options needs griffe, which comes with the extra `docs`.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # the checkout's own package, also where another one is installed

Lines = Iterator[str]


def commands() -> Lines:
    """The page of the commands: each one's arguments and options, as `--help` has them."""
    from typer.main import get_command

    from lm_eval_clas.commands import cli  # its commands add themselves to the application

    yield "# Commands"
    yield ""
    yield "`clas COMMAND --help` says the same. A mistake in a command ends it with one sentence and exit code 2. Commands that"
    yield "take long go on where they were if the same command is given again."
    command: Any = get_command(cli.app)
    for name in cli.ORDER:
        if not command.commands[name].hidden:
            yield from _command(name, command.commands[name])


def _function(command: Any) -> Any:
    """The function behind a command, which typer has wrapped."""
    return inspect.unwrap(command.callback)


def _command(name: str, command: Any) -> Lines:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False) and parameter.name != "help"]
    arguments = [one for one in shown if one.param_type_name == "argument"]
    options = [one for one in shown if one.param_type_name == "option"]
    words = ["clas", name, *(_word(one) for one in arguments)]
    types = get_type_hints(_function(command))
    words += [f"{one.opts[0]} {_choices(types[one.name]) or _metavar(one)}" for one in options if one.required]
    if name == "eval":
        words.append("[options of lm_eval run]")
    elif any(not one.required for one in options):
        words.append("[options]")
    yield from ("", f"## clas {name}", "", _text(command.help), "", "```text", " ".join(words), "```")
    if arguments:
        yield from ("", "| argument | |", "| --- | --- |")
        for one in arguments:
            yield f"| `{_word(one)}` | {_cell(one.help)} |"
    if options:
        yield from ("", "| option | |", "| --- | --- |")
        for one in options:
            yield f"| {_names(one)} | {_cell(_with_choices(one.help, types.get(one.name)))}{_default(one)} |"


def _word(argument: Any) -> str:
    word = str(argument.metavar or argument.name.upper() + ("..." if argument.nargs == -1 else ""))
    return word if argument.required else f"[{word}]"


def _metavar(option: Any) -> str:
    return str(option.metavar or option.name).upper().replace("_", "-")


def _names(option: Any) -> str:
    return " ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])


def _choices(kind: Any) -> str:
    """The values of an option whose type is an enumeration; typer has no stable way to ask for them."""
    kinds = [one for one in (kind, *get_args(kind)) if isinstance(one, type) and issubclass(one, Enum)]
    return "|".join(str(member.value) for one in kinds for member in one)


def _with_choices(text: str, kind: Any) -> str:
    unnamed = [choice for choice in _choices(kind).split("|") if choice not in text]
    return f"{text} One of: {', '.join(_choices(kind).split('|'))}." if unnamed and unnamed != [""] else text


def _default(option: Any) -> str:
    if option.required:
        return " Required."
    value = option.default() if callable(option.default) else option.default
    if isinstance(value, Enum):
        value = value.value
    return "" if value is None or value is False or value == "" or value in ([], ()) else f" Default: `{value}`."


def options() -> Lines:
    """The page of the arguments of `--model hf-clas`, from the class's docstring and signature."""
    import griffe

    model: Any = griffe.load("lm_eval_clas.harness.hf_clas", search_paths=[str(ROOT)])["CLASLM"]
    sections = model.docstring.parse("google")
    described = {one.name: one.description for part in sections if part.kind.value == "parameters" for one in part.value}
    defaults = {one.name: one.default for one in model["__init__"].parameters}  # as source text; None for none
    yield "# Options of hf-clas"
    yield ""
    yield "Options go into `--model_args`, with commas between them:"
    yield ""
    yield "```bash"
    yield "lm_eval --model hf-clas --tasks TASK \\"
    yield "  --model_args pretrained=MODEL,masks=MASKS,alpha=-2,layers=13-15"
    yield "```"
    yield ""
    yield "All arguments of `--model hf` are taken as well: `dtype`, `revision`, `peft`, `parallelize`, `trust_remote_code`"
    yield "and so on. What the options mean for the method is on the page about [the method](method.md)."
    yield ""
    yield "| option | |"
    yield "| --- | --- |"
    for name, description in described.items():
        default = "Required." if defaults[name] is None else f"Default: `{str(defaults[name]).strip(QUOTES)}`."
        yield f"| `{name}` | {_cell(description)}{'' if default == 'Default: `None`.' else f' {default}'} |"
    yield ""
    yield "What was in force is in the results file under `config.clas` (see [file formats](file-formats.md#results))."


QUOTES = "'\""
MARK = "<!-- Made from the code by docs/mkdocs/reference.py: change the help texts there, and run it again. -->\n"
PAGES = {"commands": commands, "options": options}


def _text(text: str | None) -> str:
    """A help text as Markdown: without the markup of the terminal, and with nothing taken for HTML."""
    plain = re.sub(r"\[/?(?:bold|italic|dim|red|green)[^\]]*\]", "", text or "")
    return re.sub(r"[<*_]", lambda match: "\\" + match[0], plain) if "`" not in plain else plain


def _cell(text: str | None) -> str:
    return _text(text).replace("|", r"\|").replace("\n", " ")


def main() -> int:
    stale = 0
    for name, lines in PAGES.items():
        page, made = ROOT / "docs" / f"{name}.md", "\n".join((MARK, *lines())) + "\n"
        if "--check" not in sys.argv[1:]:
            page.write_text(made, encoding="utf-8")
        elif not page.is_file() or page.read_text(encoding="utf-8") != made:
            print(f"docs/{page.name} is out of date: run python docs/mkdocs/{Path(__file__).name}", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
