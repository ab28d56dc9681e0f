"""The same texts in every language: parallel corpora from the Hub, from files, or from the package."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import jinja2
import yaml

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.logs import own_logger
from lm_eval_clas.base.near_names import did_you_mean
from lm_eval_clas.base.processes import launched_as
from lm_eval_clas.disk.checked_files import read_text, user_path
from lm_eval_clas.disk.checked_json import parse_json, shown
from lm_eval_clas.disk.files import PACKAGE, shipped
from lm_eval_clas.languages.language_names import did_you_mean_language, parse_language
from lm_eval_clas.languages.macrolanguages import known_language

logger = own_logger(__name__)

XNLI_LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh")
XQUAD_LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh")
MINI_LANGUAGES = ("ar", "bg", "de", "el", "en", "es", "fr", "hi", "ro", "ru", "sw", "th", "tr", "ur", "vi", "zh")
# Of CLaS-Bench (Gurgurov et al. 2026, arXiv 2601.08331).
BENCH_LANGUAGES = (
    *("ar", "bo", "cs", "da", "de", "el", "en", "es", "fa", "fr", "hi", "id", "it", "ja", "ka", "kk"),
    *("ko", "mt", "nl", "no", "pl", "pt", "ro", "ru", "sk", "sv", "sw", "th", "tr", "uk", "vi", "zh"),
)

Half = Literal["first", "second"]
_HALVES: dict[Half, str] = {"first": ", first half", "second": ", second half"}  # what the name of a corpus ends in

Rows = dict[str, str]  # text by id, of one language, in the corpus's order


def split_half(name: str) -> tuple[str, Half | None]:
    """The name of a corpus without its half, and which half it is, if it is one."""
    for half, ending in _HALVES.items():
        if name.endswith(ending):
            return name.removesuffix(ending), half
    return name, None


@dataclass(frozen=True)
class ParallelTexts:
    """The same items in every language.

    Attributes:
        name: of the corpus: `xquad`, `xnli`, `mini`, or the last part of a path, `texts.jsonl` or `texts/`, which is none of
            these; and which half it is, if it is one.
        ids: of the items, in order.
        texts: by language, one text per id, in the order of `ids`.
    """

    name: str
    ids: tuple[str, ...]
    texts: dict[str, tuple[str, ...]]

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP-47 codes."""
        return tuple(self.texts)

    def sha256(self) -> str:
        """A hash over ids and texts, in hex."""
        content = json.dumps([self.name, self.ids, self.texts], ensure_ascii=False, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


@dataclass(frozen=True)
class ParallelInputBuilder:
    """Reads a parallel corpus and takes the same sample of it in every language.

    Attributes:
        corpus: `xquad` or `xnli` (from the Hub or its cache; only rows set aside for profiling) or `mini` (ships with the
            package), each as the zero-shot prompts of our tasks; or a `.jsonl` file whose lines hold `id`, `language` and
            `text`, or a folder of files `LANGUAGE.txt` (parallel by line) or `LANGUAGE.jsonl` (`id` and `text`, parallel
            by id).
        languages: BCP-47 codes; None takes all that the corpus has.
        samples: how many items, the first ones in the order of the first language; None takes all.
        half: of the sample: items 1, 3, 5, ... are the `first`, items 2, 4, 6, ... the `second`; None takes both.
    """

    corpus: str
    languages: Sequence[str] | None = None
    samples: int | None = None
    half: Half | None = None

    def build(self) -> ParallelTexts:
        """Reads, checks and samples.

        Raises:
            ClasError: no such corpus or language, too few items, or the languages are not parallel; a missing or extra
                item is named.
        """
        if self.corpus in _NAMED:
            known, read = _NAMED[self.corpus]
            name, rows = self.corpus, {language: read(language) for language in self._choose(known)}
        else:
            path = user_path(self.corpus)
            available = _read_path(path)
            name, rows = _path_name(path), {language: available[language] for language in self._choose(tuple(available))}
        _check_parallel(rows, name)
        ids = list(next(iter(rows.values())))
        if self.samples is not None:
            if not 0 < self.samples <= len(ids):
                raise ClasError(f"--samples {self.samples} is out of range: corpus '{name}' has {len(ids)} items.")
            ids = ids[: self.samples]
        if self.half is not None:
            if self.half not in get_args(Half) or len(ids) < 2:
                raise ClasError(f"--half is first or second, of two items at least; not '{self.half}' of {len(ids)}.")
            name, ids = f"{name}{_HALVES[self.half]}", ids[self.half == "second" :: 2]
        return ParallelTexts(name, tuple(ids), {language: tuple(rows[language][i] for i in ids) for language in rows})

    def _choose(self, known: tuple[str, ...]) -> tuple[str, ...]:
        if self.languages is None:
            return known
        if isinstance(self.languages, str):
            raise ClasError(f"languages must be a list of codes, not the string '{self.languages}'.")
        chosen = tuple(dict.fromkeys(known_language(language, known) for language in self.languages))
        if unknown := [language for language in chosen if language not in known]:
            told = ", ".join(f"{one}{did_you_mean(one, known) or did_you_mean_language(one)}" for one in unknown)
            raise ClasError(
                f"Corpus '{self.corpus}' has no {told}; it has {', '.join(known)}. Choose among these with --languages."
            )
        return chosen


def load_hub(repository: str, config: str | None, split: str, instead: str = "--corpus mini, which ships") -> Any:
    """One split of a Hub data set, from the Hub or the local cache.

    Args:
        config: its configuration; None if it has a single one.
        instead: what to use without it, of what comes with the package.

    Raises:
        ClasError: neither has it.
    """
    from datasets import load_dataset

    try:
        return load_dataset(repository, config, split=split)
    except Exception as error:  # datasets and the Hub client raise many kinds; each means that the data is not to be had
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ClasError(
            f"Cannot load {repository}{f' ({config})' if config else ''}: {reason}. Check the connection to the Hub, or use "
            f"{instead} with the package."
        ) from error


def _prompts(task: str, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str]]:
    """Rows with their zero-shot prompts in one of our tasks: neurons are profiled on what the model will be asked.

    Byte order marks, which some of XQuAD's passages begin with in some languages only, are taken out.
    """
    folder, _, _ = task.removeprefix("clas_").partition("_")
    config = yaml.safe_load((shipped("tasks") / folder / f"{task}.yaml").read_text(encoding="utf-8"))
    template = jinja2.Template(config["doc_to_text"])
    for row in rows:
        yield row, template.render(row).replace("\ufeff", "")


def _xquad(language: str) -> Rows:
    from lm_eval_clas.texts.splits import xquad_rows

    rows = xquad_rows(load_hub("google/xquad", f"xquad.{language}", "validation"), "profile")
    return {row["id"]: prompt for row, prompt in _prompts(f"clas_xquad_{language}", rows)}


def _xnli(language: str) -> Rows:
    from lm_eval_clas.texts.splits import xnli_rows

    rows = xnli_rows(load_hub("facebook/xnli", language, "validation"), "tune")
    return {f"tune-{i}": prompt for i, (_, prompt) in enumerate(_prompts(f"clas_xnli_tune_{language}", rows))}


def _mini(language: str) -> Rows:
    rows = _json_lines(PACKAGE / "data" / "mini" / f"{language}.jsonl")
    named = ({**row, "context": row["passage"]} for _, row in rows)
    return {row["id"]: prompt for row, prompt in _prompts(f"clas_mini_qa_{language}", named)}


_NAMED: dict[str, tuple[tuple[str, ...], Callable[[str], Rows]]] = {
    "xquad": (XQUAD_LANGUAGES, _xquad),
    "xnli": (XNLI_LANGUAGES, _xnli),
    "mini": (MINI_LANGUAGES, _mini),
}


def _path_name(path: Path) -> str:
    """The last part of a path, with the ending of a file and the slash of a folder: never the name of a corpus we know."""
    name = Path(os.path.abspath(path)).name
    return f"{name}/" if path.is_dir() else name


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a file with one on each line, with the number of the line. Blank lines do not count."""
    for number, line in _numbered(path):
        try:
            row = parse_json(line)
            if not isinstance(row, dict):
                raise ValueError("it is no JSON object")
        except ValueError as error:
            raise ClasError(f"'{path}', line {number}: {error}; each line must be one, like {_LIKE}.") from error
        yield number, row


_LIKE = '{"id": 1, "text": "..."}'


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file. Only LF and CRLF end a line: a lone CR, U+2028 and the like occur inside texts.

    Raises:
        ClasError: it cannot be read.
    """
    try:
        return re.split("\r?\n", read_text(path))
    except FileNotFoundError as error:
        raise ClasError(f"'{path}' cannot be read as UTF-8 text (there is no such file); give another path.") from error
    except ValueError as error:
        raise ClasError(f"'{path}' cannot be read as UTF-8 text ({error}); give a plain text file.") from error


def _numbered(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their number in the file: blank ones shift nothing."""
    return ((number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip())


def _read_path(path: Path) -> dict[str, Rows]:
    """Text by language and id, from a file or a folder."""
    rows: dict[str, Rows] = {}
    if path.is_dir():
        for language, file in _language_files(path).items():
            if file.suffix == ".txt":
                rows[language] = {f"line {number}": text for number, text in _numbered(file)}
            else:
                for number, row in _json_lines(file):
                    _add(rows, row, language, f"'{file}', line {number}")
            if not rows.get(language):
                raise ClasError(f"'{file}' holds no texts; fill it, or take it away.")
    elif path.suffix == ".jsonl" and path.exists():
        for number, row in _json_lines(path):
            where = f"'{path}', line {number}"
            code = parse_language(row["language"]) if isinstance(row.get("language"), str) else None
            if code is None:
                given = shown(repr(row.get("language")))
                raise ClasError(f"{where}: its 'language' must be a language code (BCP-47, e.g. hi), not {given}.")
            _add(rows, row, code, where)
    else:
        raise ClasError(
            f"There is no corpus '{path}'{did_you_mean(str(path), _NAMED)}: give {', '.join(_NAMED)}, a .jsonl file with id, "
            "language and text, or a folder of LANGUAGE.txt or LANGUAGE.jsonl files."
        )
    if not rows:
        raise ClasError(f"'{path}' holds no texts: it needs LANGUAGE.txt or LANGUAGE.jsonl files, or lines of JSON.")
    return rows


def _language_files(folder: Path) -> dict[str, Path]:
    """The files of a folder that are named after a language; the others are passed over with a word.

    Raises:
        ClasError: two files are of one language, or the folder cannot be read.
    """
    found: dict[str, Path] = {}
    others = []
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ClasError(f"The corpus '{folder}' cannot be read ({error.strerror}); make it readable.") from error
    for path in entries:
        code = parse_language(path.stem) if path.suffix in (".txt", ".jsonl") else None
        if code is None:
            others.append(path.name)
        elif code in found:
            raise ClasError(f"'{found[code]}' and '{path.name}' are both of language '{code}'; keep one of them.")
        else:
            found[code] = path
    if others and launched_as()[0] == 0:
        _say_passed_over(folder, tuple(others))
    return found


@cache  # a study reads a corpus several times
def _say_passed_over(folder: Path, names: tuple[str, ...]) -> None:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    listed = ", ".join(map(shown, names[:5]))
    logger.warning(f"Corpus '{folder}': passed over {listed}{more}, not named LANGUAGE.txt or LANGUAGE.jsonl.")


def _add(rows: dict[str, Rows], row: dict[str, Any], code: str, where: str) -> None:
    one, text = row.get("id"), row.get("text")
    if isinstance(one, bool) or not isinstance(one, str | int | float) or one != one:
        raise ClasError(f"{where}: needs an 'id' that is a string or a number, not {shown(repr(one))}.")
    if not isinstance(text, str):
        raise ClasError(f"{where}: needs a 'text' that is a string, not {shown(repr(text))}.")
    if not text.strip():
        raise ClasError(f"{where}: the text is empty; take the item out of every language.")
    if str(one) in rows.setdefault(code, {}):
        raise ClasError(f"{where}: {shown(one)} is there twice for language '{code}'; give every item an id of its own.")
    rows[code][str(one)] = text


def _check_parallel(rows: dict[str, Rows], name: str) -> None:
    first = next(iter(rows))
    for language in rows:
        for here, there in ((first, language), (language, first)):
            if missing := [one for one in rows[here] if one not in rows[there]]:
                raise ClasError(
                    f"Corpus '{name}' is not parallel: {shown(missing[0])} is in '{here}' and missing or blank in '{there}' "
                    f"({len(missing)} such); give every language the same items."
                )
