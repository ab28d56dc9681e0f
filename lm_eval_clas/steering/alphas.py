"""Alpha as a user gives it: one number, or one by language, in Python or in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.plain_numbers import plain_number, real_number
from lm_eval_clas.disk.checked_files import user_path
from lm_eval_clas.disk.checked_json import read_json, shown
from lm_eval_clas.languages.macrolanguages import known_language

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet

DEFAULT = "default"  # the key for languages that are not named


def parse_alpha(alpha: float | str | Mapping[str, float], masks: MaskSet) -> float | Mapping[str, float]:
    """A number; or numbers by language, with the codes that the masks have, and perhaps a `default`.

    Raises:
        ClasError: it is neither, a number is not finite, or the languages are not those that the masks steer.
    """
    if alpha == "tuned":
        raise ClasError("alpha=tuned differs by task, which only hf-clas knows; here, give a number, e.g. alpha=1.0.")
    if isinstance(alpha, str) and alpha.endswith(".json"):
        return _by_language(_read(alpha), masks, f"The alpha file '{alpha}'")
    if isinstance(alpha, Mapping):
        return _by_language(alpha, masks, "alpha")
    try:
        return plain_number(alpha)
    except ValueError as error:
        raise ClasError(f"alpha must be a number or a .json file with one by language, not {shown(repr(alpha))}.") from error


def _read(file: str) -> Mapping[str, object]:
    try:
        content = read_json(user_path(file), printable=True)
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
    except FileNotFoundError as error:
        raise ClasError(f"There is no alpha file '{file}'; give a number, or a file like {_LIKE}.") from error
    except ClasError:
        raise
    except ValueError as error:
        raise ClasError(
            f"The alpha file '{file}' cannot be read ({error}); it holds one number by language, like {_LIKE}."
        ) from error
    return content


_LIKE = '{"hi": -2, "default": 1}'


def _by_language(given: Mapping[str, object], masks: MaskSet, where: str) -> dict[str, float]:
    """Numbers by the masks' codes: every language that is steered has one, or there is a default.

    A number other than 0 for the anchor asks for what never happens, and is refused; 0 says what does.
    """
    numbers: dict[str, float] = {}
    spelling: dict[str, str] = {}
    for key, value in given.items():
        code = key if key == DEFAULT else known_language(str(key), masks.languages)
        if code in numbers:
            raise ClasError(f"{where} has two numbers for '{code}', as '{spelling[code]}' and as '{key}'; keep one of them.")
        try:
            numbers[code], spelling[code] = real_number(value), key
        except ValueError as error:
            raise ClasError(f"{where} must have a finite number for '{shown(key)}', not {shown(repr(value))}.") from error
    if unknown := sorted(set(numbers) - set(masks.languages) - {DEFAULT}):
        raise ClasError(
            f"{where} names languages that the masks do not have: {', '.join(map(shown, unknown[:5]))}; they have "
            f"{', '.join(masks.languages)}."
        )
    if numbers.get(masks.anchor):
        raise ClasError(
            f"{where} has {numbers[masks.anchor]:g} for '{masks.anchor}', the anchor of these masks, which is never steered; "
            "take it out, or make it 0."
        )
    if DEFAULT not in numbers and (missing := sorted(set(masks.languages) - {masks.anchor} - set(numbers))):
        raise ClasError(f"{where} has no number for {', '.join(missing)}; add them, or a 'default'.")
    return numbers
