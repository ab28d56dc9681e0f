"""JSON that may come from anywhere: with nothing in it that breaks what comes after reading."""

from __future__ import annotations

import inspect
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.escaping import visible
from lm_eval_clas.base.near_names import did_you_mean
from lm_eval_clas.disk.checked_files import decoded, read_bytes
from lm_eval_clas.disk.files import write_text

T = TypeVar("T")

_LARGEST = 100_000_000  # bytes; a mask folder's configuration with hundreds of tuned strengths has some hundred thousand
_DEEPEST = 100  # levels; ours have ten at most
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LONGEST = 80  # characters of a text in a message


class Strict(BaseModel):
    """What files of ours hold: a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class StrictFinite(Strict):
    """The same, for files that may come from anywhere: no infinities either, and nothing that is no number."""

    model_config = ConfigDict(allow_inf_nan=False)


def parse_json(content: bytes | str) -> Any:
    """The value of one JSON text.

    No key comes twice, every whole number fits a float, every text is UTF-8, and nothing is nested so deeply that a function
    which calls itself would fail. NaN and infinities, which Python writes, are read: who needs a number asks whether it is
    finite.

    Raises:
        ValueError: it is none of that kind; the message says why.
    """
    text = decoded(content) if isinstance(content, bytes) else content
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_int=_whole)
    except json.JSONDecodeError as error:
        where = f" from line {error.lineno} on" if "\n" in text.strip() else ""
        raise ValueError(f"it is no JSON{where}" if text.strip() else "it is empty") from error
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if _SURROGATE.search(text) and not all(map(_is_unicode, _texts(value))):
        raise ValueError("it has half a character (a lone surrogate)")
    if text.count("[") + text.count("{") > _DEEPEST and _depth(value) > _DEEPEST:
        raise ValueError("it is nested too deeply")
    return value


def read_json(path: Path, *, printable: bool = False) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        printable: refuses texts that cannot be printed on one line as they are.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no such file, or cannot be read; the message says why.
    """
    value = parse_json(read_bytes(path, _LARGEST))
    if printable and any(visible(text) != text for text in _texts(value)):
        raise ValueError("it has a text that cannot be printed")
    return value


def visible_texts(value: Any) -> Any:
    """What JSON gave, with nothing in its texts and keys but what can be seen (`escaping.visible`)."""
    if isinstance(value, dict):
        return {visible(key): visible_texts(one) for key, one in value.items()}
    if isinstance(value, list):
        return [visible_texts(one) for one in value]
    return visible(value) if isinstance(value, str) else value


def read_as(kind: type[T] | Any, path: Path, remedy: str) -> T:
    """The content of a JSON file as a type that pydantic knows, with texts that can be shown.

    Raises:
        ClasError: there is none, it cannot be read, or it is something else; the sentence ends in the remedy.
    """
    adapter: TypeAdapter[T] = TypeAdapter(kind)
    try:
        return adapter.validate_python(visible_texts(read_json(path)))
    except ValidationError as error:
        raise ClasError(f"'{path}' is damaged or something else: {first_fault(error)}; {remedy}") from error
    except FileNotFoundError as error:
        raise ClasError(f"There is no file '{path}'; {remedy}") from error
    except ValueError as error:
        raise ClasError(f"'{path}' cannot be read ({error}); {remedy}") from error


def write_as(found: BaseModel, path: Path) -> None:
    """Writes what `read_as` reads, whole or not at all."""
    write_text(path, json.dumps(found.model_dump(), indent=1, ensure_ascii=False) + "\n")


def first_fault(error: ValidationError, kind: type[BaseModel] | None = None) -> str:
    """Where pydantic found the first fault, and which, on one line.

    Args:
        error: what pydantic raised.
        kind: what was read: with it, a field that is not known is told with the nearest one that is.
    """
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"] if part != "[key]")
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        what = f"there is no such field{did_you_mean(str(first['loc'][-1]), _fields(kind, first['loc'][:-1]))}"
    elif first["type"] == "literal_error":
        what += did_you_mean(str(first["input"])[:_LONGEST], re.findall("'([^']*)'", first["ctx"]["expected"]))
    return shown(f"{where[:200]}: {what[:200]}" if where else what, 400)


def _fields(kind: Any, path: Sequence[int | str]) -> list[str]:
    """The names of the fields of what is read at a place; none where that is no model of pydantic's."""
    for part in path:
        if not (inspect.isclass(kind) and issubclass(kind, BaseModel)):
            values = get_args(kind)  # of a list or a mapping, the last is what it holds
            kind = values[-1] if values else None
        else:
            kind = kind.model_fields[str(part)].annotation if part in kind.model_fields else None
    return list(kind.model_fields) if inspect.isclass(kind) and issubclass(kind, BaseModel) else []


def shown(value: object, longest: int = _LONGEST) -> str:
    """What a file holds, such as a name or an id, as a message can show it: on one line, and not too long."""
    text = visible(str(value))
    return text if len(text) <= longest else f"{text[:longest]}..."


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        (twice, _), *_ = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"it has '{shown(twice)}' twice")
    return found


def _whole(digits: str) -> int:
    try:
        number = int(digits)
        float(number)
    except (ValueError, OverflowError) as error:
        raise ValueError("it has a number that is too large") from error
    return number


def _parts(value: Any) -> Iterator[tuple[Any, int]]:
    """The value and all that is in it, with the number of containers that each is in. Calls itself nowhere."""
    left = [(value, 0)]
    while left:
        one, depth = left.pop()
        yield one, depth
        inside = [*one.keys(), *one.values()] if isinstance(one, dict) else one if isinstance(one, list) else []
        left.extend((part, depth + 1) for part in inside)


def _depth(value: Any) -> int:
    return max(depth for _, depth in _parts(value))


def _texts(value: Any) -> Iterator[str]:
    return (one for one, _ in _parts(value) if isinstance(one, str))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
