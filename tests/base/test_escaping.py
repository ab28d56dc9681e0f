"""The gate between what files hold and what people see: every character that does something, and nothing else."""

from __future__ import annotations

import ast
import io
import json
import logging
import random
import unicodedata
from pathlib import Path

import pytest
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from lm_eval_clas import ClasError
from lm_eval_clas.base.escaping import latex_text, markdown, markdown_text, python_text, shell_word, visible
from lm_eval_clas.base.logs import own_logger
from lm_eval_clas.base.screen import Screen, print_out
from lm_eval_clas.disk.files import PACKAGE, write_text
from lm_eval_clas.drawing.figures import new_figure, save

HOSTILE = "\x1b]0;title\x07\x1b[31mred\u202etxt\u2066\u200b\ufeff\x00\x7f\x9b1m\u2028\r\ud800\ue000\U000e0041\U0010fffd\xad"


def test_what_does_something_is_escaped_and_nothing_else() -> None:
    for number in range(0x110000):
        char = chr(number)
        does = unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") and char not in "\u200c\u200d"
        if does:
            assert visible(char) != char, hex(number)
        elif unicodedata.category(char) != "Cn":  # newer characters may be format characters of newer versions
            assert visible(char) == char, hex(number)


def test_words_that_need_joiners_stay_whole() -> None:
    for text in ("क्\u200dष", "می\u200cخواهم", "👩\u200d🔬", "नमस्ते", "中文", "ไทย", "عربي", "é"):
        assert visible(text) == text
        assert markdown(text) == text
        assert markdown_text(text) == text


def test_a_text_stays_as_it_is_the_second_time_and_within_json() -> None:
    chance = random.Random(0)
    for _ in range(500):
        text = "".join(
            chr(chance.choice([chance.randrange(0x300), chance.randrange(0x2000, 0x2100), 0x1F600, 0xE0001])) for _ in "x" * 8
        )
        assert visible(visible(text)) == visible(text)
        assert json.loads(visible(json.dumps({text: [text]}, ensure_ascii=False))) == {text: [text]}
    assert visible("a\n\tb\x1b", keep="\n\t") == "a\n\tb\\u001b"


def only_seen(text: str, keep: str = "\n") -> bool:
    return visible(text, keep) == text


@pytest.mark.parametrize("terminal", [False, True])
def test_screens_show_and_do_nothing(terminal: bool) -> None:
    stream = io.StringIO()
    screen = Screen(file=stream, force_terminal=terminal, color_system="standard" if terminal else None, width=400)
    table = Table("heading " + escape(HOSTILE), title=escape(HOSTILE))
    table.add_row(Text(HOSTILE))
    for one in (HOSTILE, escape(HOSTILE), Text(HOSTILE), Text(HOSTILE, style="bold"), table):
        screen.print(one)
    screen.print(HOSTILE, markup=False, highlight=False, soft_wrap=True)
    written = stream.getvalue()
    assert "red" in written
    ours = ("\x1b[0m", "\x1b[1m", "\x1b[3m", "\x1b[1;36m", "\x1b[36m", "\x1b[32m", "\x1b[35m", "\x1b[95m", "\x1b[1;35m")
    for code in ours if terminal else ():
        written = written.replace(code, "")
    assert only_seen(written)
    assert "\\u202e" in written


def test_errors_logs_output_files_and_cards_show_and_do_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    assert only_seen(str(ClasError(f"'{HOSTILE}' is wrong; leave it out.")), keep="")
    for seed in range(2):  # a logger that is asked for twice writes once
        with caplog.at_level(logging.INFO):
            own_logger("lm_eval.models.hf_clas").warning("hf-clas: %s %d", HOSTILE, seed)
    assert [record.getMessage()[-1] for record in caplog.records] == ["0", "1"]
    assert all(only_seen(record.getMessage(), keep="") for record in caplog.records)
    print_out(f"a\tb\n{HOSTILE}")
    printed = capsys.readouterr().out
    assert printed.startswith("a\tb\n")
    assert only_seen(printed, keep="\n\t")
    write_text(tmp_path / "a.json", json.dumps([HOSTILE[:-12]], ensure_ascii=False).replace("\\ud800", ""))
    assert only_seen((tmp_path / "a.json").read_text(encoding="utf-8"))
    for function in (markdown, markdown_text, latex_text, shell_word, python_text):
        assert only_seen(function(HOSTILE), keep="")
        assert "202e" in function(HOSTILE)


def test_pictures_show_labels_as_they_are_and_no_formulas(tmp_path: Path) -> None:
    figure = new_figure(3, 2)
    axes = figure.subplots()
    axes.set_title(HOSTILE.replace("\ud800", ""))
    axes.set_xlabel(r"$\frac$ costs $5")  # as a formula, an error
    figure.suptitle("two\nlines")
    save(figure, tmp_path / "picture.svg")
    assert axes.get_title().startswith("\\u001b]0;title\\u0007")
    assert figure.get_suptitle() == "two\nlines"


# What may write past the gate: the gate itself; the hook and the start, which say a sentence of ours before anything is
# imported; who holds a lock, which went through it; and copies of a person's own card, whose new parts did.
BESIDE_THE_GATE = {
    "__main__.py": {"print", "stderr"},
    "base/screen.py": {"print", "Console"},
    "base/logs.py": {"getLogger"},
    "harness/plugin.py": {"stderr"},
    "disk/files.py": {"open"},
    "disk/hash_lines.py": {"open", "write_bytes"},
    "disk/one_writer.py": {"open"},
    "disk/journal.py": {"open"},
    "disk/tensor_bytes.py": {"open"},
    "disk/tensors.py": {"write_bytes"},
    "export/ia3_adapter.py": {"write_bytes"},
    "export/written_export.py": {"write_bytes"},
    "export/pushing.py": {"write_bytes"},
    "families/family_trial.py": {"write_bytes"},
    "families/vllm_trial.py": {"print", "stderr"},
}


def test_nothing_is_printed_or_written_beside_the_gate() -> None:
    """By whatever a program prints and writes with: `print`, a console, a stream, a logger, a file's own methods."""
    found: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        used = found.setdefault(path.relative_to(PACKAGE).as_posix(), set())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.stdout", "sys.stderr"):
                used.add(node.attr)
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            modes = [one.value for one in node.args[:1] + node.args[1:2] if isinstance(one, ast.Constant)]
            writes = name == "open" and any(set(str(mode)) & set("wax+") and len(str(mode)) < 4 for mode in modes)
            own = isinstance(node.func, ast.Attribute) and name == "write_text"  # a path's method, and not ours
            if writes or own or name in ("print", "Console", "echo", "getLogger", "write_bytes"):
                quiet = isinstance(node.func, ast.Attribute) and name == "print"  # a screen's method
                used |= set() if quiet else {name}
    found["base/screen.py"].add("Console")  # it is made of one
    found["base/logs.py"].add("getLogger")
    found["commands/application.py"] -= {"stderr"}  # whether it is a terminal
    assert {path: used for path, used in found.items() if used} == BESIDE_THE_GATE
