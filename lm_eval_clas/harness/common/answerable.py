"""Requests that have no answer, each refused with a sentence: the harness ends in the middle of a run, or makes numbers up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.utils import normalize_gen_kwargs

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.checked_json import shown

# A request as the harness tokenises it: the strings (its key in caches), the context's tokens, the continuation's.
Tokenized = tuple[tuple[str, str] | None, list[int], list[int]]


def require_choices(lm: Any, requests: Sequence[Instance]) -> None:
    """Refuses continuations of no token without a context, of which the harness reads the first token.

    Args:
        lm: a model of the harness with a tokenizer.
        requests: log-likelihoods.

    Raises:
        ClasError: there is one.
    """
    for context, continuation, *_ in (request.args for request in requests):
        if context == "" and not continuation.strip() and not lm.tok_encode(continuation, add_special_tokens=False):
            raise _unscorable(0, 0, lm.max_length)


def require_scorable(requests: Sequence[Tokenized], longest: int) -> None:
    """Refuses continuations that are empty, too long to be scored as a whole, or without a context.

    Args:
        requests: log-likelihoods, as tokens.
        longest: the most tokens of a continuation that the model scores.

    Raises:
        ClasError: there is one.
    """
    for _, context, continuation in requests:
        if not context or not 0 < len(continuation) <= longest:
            raise _unscorable(len(context), len(continuation), longest)


def _unscorable(context: int, continuation: int, longest: int) -> ClasError:
    return ClasError(
        f"A continuation of {continuation} tokens after {context} cannot be scored: it takes a context, and at least one "
        f"token and at most {longest} of a continuation."
    )


def require_prompts(requests: Sequence[Instance], encode: Callable[[str], Sequence[int]]) -> None:
    """Refuses prompts of no token.

    Args:
        requests: to generate.
        encode: gives the tokens of a prompt.

    Raises:
        ClasError: there is one.
    """
    for context in {request.args[0] for request in requests if not request.args[0].strip()}:
        if not encode(context):
            raise ClasError(
                "A text cannot be generated after an empty prompt, as this tokenizer puts no token of its own in front; "
                "give the task a prompt."
            )


def require_room(lm: Any, requests: Sequence[Instance]) -> None:
    """Refuses to generate so much that no prompt fits before it, which the harness finds out in the middle of a run.

    Args:
        lm: a model of the harness.
        requests: to generate.

    Raises:
        ClasError: there is no room for a prompt, or the options of a request are no numbers.
    """
    for given in {repr(request.args[1]): request.args[1] for request in requests}.values():
        try:
            wanted = normalize_gen_kwargs(given, lm.max_gen_toks)["max_gen_toks"]
        except (TypeError, ValueError, OverflowError) as error:
            raise ClasError(
                f"Texts cannot be generated with {shown(str(given))} ({error}); give the task or --gen_kwargs numbers."
            ) from error
        if not 0 < wanted < lm.max_length:
            raise ClasError(
                f"A text of {wanted} tokens cannot be generated, as the model takes {lm.max_length} with the prompt; "
                "give the task or --gen_kwargs a max_gen_toks from 1 to less than that."
            )
