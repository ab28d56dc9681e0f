"""One family tried inside vLLM: whether a tiny model is steered there by row as `ActivationSteerer` steers it in transformers.

Runs where vLLM is installed, on a CPU. vLLM changes what transformers is in its whole process, and what ends one process must
not end the trial of other families: `vllm_cells` gives each a process of its own.
"""

from __future__ import annotations

import gc
import importlib
import multiprocessing
import os
import re
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.engine_layout import engine_arguments
from lm_eval_clas.engine.model_fit import require_fit
from lm_eval_clas.engine.refusals import refusing_engines
from lm_eval_clas.engine.row_tables import EXTRA_ARGUMENT, RowTables, steered_row, steered_tokens
from lm_eval_clas.families.family_trial import FAILED, WRONG, AtSite, found_at, lively, short_error, short_reason
from lm_eval_clas.families.random_masks import random_masks
from lm_eval_clas.families.tiny_models import VOCABULARY, Widths, tiny_model
from lm_eval_clas.families.tried_in_vllm import BREAKS, BY_TRANSFORMERS, NOT_THERE, NOT_TRIED, OTHERWISE, WORKS
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.activation_steerer import ActivationSteerer
from lm_eval_clas.steering.language_factors import LanguageFactors
from lm_eval_clas.verifying.merged_weights import merged

# Read by vLLM when it is imported: one process, no words, and latent attention, which wants wide heads, as ordinary one.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_MLA_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
}
# A step takes fewer tokens than the prompts have together, so that some run in chunks.
_STARTING: dict[str, Any] = {
    "dtype": "float32",
    "skip_tokenizer_init": True,
    "language_model_only": True,
    "max_model_len": 64,
    "enforce_eager": True,
    "block_size": 32,
    "kv_cache_memory_bytes": 32 << 20,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 96,
    "distributed_executor_backend": "uni",
}
# What the first engine of a process imports beside.
_IMPORTED = (
    "vllm.entrypoints.llm",
    "vllm.entrypoints.launchers.cli_args",
    "vllm.model_executor.layers.quantization.online.base",
    "vllm.v1.attention.backends.cpu_attn",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.engine.core",
    "vllm.v1.worker.cpu_worker",
    "lm_eval_clas.engine.worker",
)
# Heads as vLLM's attention on CPUs wants them, and MLPs as it takes them to be in families that once had no others.
_WIDTHS = Widths(hidden=128, neurons=512, head=32, rotary=16)
_ALPHA = -3.0
_NEAR = 2e-4  # of log-probabilities, as a share of the largest
_GENERATED = 4
_LENGTHS = (40, 23)  # of prompts: beyond the window of 16 of tiny models that have one
_PROMPTS = [[10 + (7 * i + 3 * length) % (VOCABULARY - 20) for i in range(length)] for length in _LENGTHS]


@dataclass(frozen=True)
class _Continued:
    """The tokens that follow a prompt, and the log-probabilities of all but the first, those of the prompt among them."""

    tokens: list[int]
    scores: torch.Tensor


Answers = dict[str | None, list[_Continued]]  # by language, of each prompt; of None, unsteered


def vllm_cells(families: Iterable[str], seconds: float) -> Iterator[tuple[str, str]]:
    """The cells of families, one after the other, each tried in a process of its own.

    The processes are copies of this one, so that vLLM is imported once.

    Args:
        families: their names.
        seconds: how long one may take.
    """
    os.environ.update(ENVIRONMENT)
    _ready()
    context = multiprocessing.get_context("fork")
    for family in families:
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_tried, args=(family, sender))
        process.start()
        sender.close()
        try:
            cell = receiver.recv() if receiver.poll(seconds) else f"{NOT_TRIED}: it took more than {seconds:.0f} seconds"
        except EOFError:
            process.join()
            cell = f"{BREAKS}: its process ended with exit code {process.exitcode}"
        process.kill()
        process.join()
        yield family, cell


def _tried(family: str, sender: Connection) -> None:
    sender.send(cell_in_vllm(family))


def _ready() -> None:
    """Makes this process one whose copies need not import vLLM again, nor go through what it holds to collect garbage."""
    for name in _IMPORTED:
        importlib.import_module(name)
    # vLLM asks a process of its own what a model's class can do, as looking might start CUDA; here, each family has one.
    registry: Any = importlib.import_module("vllm.model_executor.models.registry")
    registry._run_in_subprocess = lambda look: look()
    gc.collect()
    gc.freeze()


def cell_in_vllm(family: str) -> str:
    """What steering the MLP of a tiny model of a family does inside vLLM; whatever happens is in the cell.

    To be called once in a process.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        try:
            lively(tiny_model(family, widths=_WIDTHS)).save_pretrained(folder / "plain")  # type: ignore[operator]
            # As both load it; of some wrappers, the decoder alone cannot be.
            model = AutoModelForCausalLM.from_pretrained(folder / "plain").eval()
            plain = [_greedy(model, prompt) for prompt in _PROMPTS]
            if not all(one.scores.isfinite().all() for one in plain):
                raise ValueError("it gives no finite logits for text alone")
        except Exception as error:  # transformers raises every kind where a configuration is not consistent
            return f"{NOT_TRIED}: {_lacking(error) or _line(error)}"
        try:
            found = found_at(model, "mlp")
            return _prepared(model, found, plain, folder).cell() if found.places else found.cell
        except ClasError as error:
            return f"refused: {short_reason(str(error))}"
        except Exception as error:  # vLLM raises every kind
            traceback.print_exc(file=sys.stderr)
            return f"{FAILED}: {_line(error)}"


def _prepared(model: nn.Module, found: AtSite, plain: list[_Continued], folder: Path) -> _Trial:
    """What is to be known before vLLM starts and changes what transformers is."""
    masks = random_masks(model, "mlp", found.pattern)
    expected: Answers = {None: plain}
    with ActivationSteerer(model, masks, projection=found.pattern, alpha=_ALPHA) as steerer:
        for language in masks.languages:
            with steerer.language(language):
                expected[language] = [_greedy(model, prompt) for prompt in _PROMPTS]
    factors = LanguageFactors(masks, alpha=_ALPHA)
    with merged(found.places, factors.intervention("de")):
        model.save_pretrained(folder / "merged")  # type: ignore[operator]
    return _Trial(folder, expected, factors, found.pattern)


@dataclass(frozen=True)
class _Trial:
    """Checkpoints of a family, `plain` and `merged` (with German in its weights), what they should answer, and the steering."""

    folder: Path
    expected: Answers
    steerer: LanguageFactors
    pattern: str | None

    def cell(self) -> str:
        """The cell of the family."""
        masks = self.steerer.masks
        rows = {language: steered_row(self.steerer, language, language) for language in masks.languages}
        tables = RowTables.of_languages((language, self.steerer, language) for language in rows)
        assert tables is not None
        refused = self._refusal(masks, tables)  # before vLLM reads the configuration, and has its own for some families
        try:
            _vllm("EngineArgs")(**_STARTING, model=str(self.folder / "plain")).create_model_config()
            if refused is not None:
                raise refused
            llm = _engine(self.folder / "plain")
            by_transformers = "models.transformers" in llm.apply_model(_home)[0]
            plain = _answers(llm, dict.fromkeys(rows))
        except ClasError:
            raise
        except Exception as error:  # vLLM raises every kind
            return _failed(error)
        steered = self._steered(tables, rows)
        same = all(map(_near, plain["en"], self.expected[None]))
        if not same:
            print(f"unsteered, they differ by {_apart(plain['en'], self.expected[None]):.2g}", file=sys.stderr)
        if same:
            right = all(all(map(_near, steered[one], self.expected[one])) for one in rows)
        else:  # what vLLM itself makes of the steered weights
            right = all(map(_near, steered["de"], _answers(_engine(self.folder / "merged"), dict.fromkeys(rows))["de"]))
        checks = {
            "the anchor, which has no row, is plain vLLM's": all(map(_equal, steered["en"], plain["en"])),
            "something is steered": not any(map(_near, steered["de"], plain["de"])),
            "it is steered rightly": right,
        }
        if faults := [check for check, holds in checks.items() if not holds]:
            found = {one: _apart(steered[one], self.expected[one]) for one in rows}
            print("not so:", *faults, f"steered, they differ by {found}", sep="\n", file=sys.stderr)
            return WRONG
        return WORKS + (f", {BY_TRANSFORMERS}" if by_transformers else "") + ("" if same else f"; {OTHERWISE}")

    def _refusal(self, masks: MaskSet, tables: RowTables) -> ClasError | None:
        try:
            require_fit(masks, tables.place, str(self.folder / "plain"))
        except ClasError as error:
            return error
        return None

    def _steered(self, tables: RowTables, rows: Mapping[str, str | None]) -> Answers:
        """What an engine answers that steers, if each layer did it once to each token.

        Raises:
            ClasError: it is refused.
        """
        with refusing_engines():
            llm = _engine(self.folder / "plain", **engine_arguments(tables, "mlp", self.pattern))
        changes = tables.changes(llm.collective_rpc("clas_load", args=(tables.dump(),)))
        answers = _answers(llm, rows)
        counted = steered_tokens(llm.collective_rpc("clas_take_counts"))
        for name in filter(None, rows.values()):
            if any(not counted.get(name, {}).get(layer) for layer in changes[name]):
                raise ClasError("no position was steered in a layer, so there is no score")
        return answers


def _vllm(name: str) -> Any:
    return getattr(importlib.import_module("vllm"), name)


def _engine(checkpoint: Path, **more: Any) -> Any:
    return _vllm("LLM")(model=str(checkpoint), **_STARTING, **more)


def _home(model: nn.Module) -> str:
    return type(model).__module__


def _answers(llm: Any, rows: Mapping[str, str | None]) -> Answers:
    """What vLLM answers, all languages in one batch."""
    asked = [(language, prompt) for language in rows for prompt in _PROMPTS]
    options = {
        "temperature": 0,
        "max_tokens": _GENERATED,
        "ignore_eos": True,
        "detokenize": False,
        "prompt_logprobs": 0,
        "logprobs": 0,
    }
    params = [
        _vllm("SamplingParams")(**options, extra_args=None if (name := rows[language]) is None else {EXTRA_ARGUMENT: name})
        for language, _ in asked
    ]
    found: Answers = {language: [] for language in rows}
    given = llm.generate([{"prompt_token_ids": prompt} for _, prompt in asked], params, use_tqdm=False)
    for (language, prompt), one in zip(asked, given, strict=True):
        tokens = list(one.outputs[0].token_ids)
        by_place = [*one.prompt_logprobs[1:], *one.outputs[0].logprobs]
        scores = [place[token].logprob for place, token in zip(by_place, [*prompt[1:], *tokens], strict=True)]
        found[language].append(_Continued(tokens, torch.tensor(scores)))
    return found


def _greedy(model: nn.Module, prompt: Sequence[int]) -> _Continued:
    """What a model of transformers answers, each token in a pass of its own over all before it."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(_GENERATED):
            logits = model(input_ids=torch.tensor([ids])).logits[0, :, :VOCABULARY]
            ids.append(int(logits[-1].argmax()))
    scores = logits.float().log_softmax(-1)[torch.arange(len(ids) - 1), torch.tensor(ids[1:])]
    return _Continued(ids[len(prompt) :], scores)


def _equal(one: _Continued, other: _Continued) -> bool:
    return one.tokens == other.tokens and torch.equal(one.scores, other.scores)


def _near(one: _Continued, other: _Continued) -> bool:
    return one.tokens == other.tokens and _apart([one], [other]) <= _NEAR


def _apart(some: Sequence[_Continued], others: Sequence[_Continued]) -> float:
    """The largest difference of log-probabilities, as a share of the largest."""
    pairs = [(one.scores, other.scores) for one, other in zip(some, others, strict=True)]
    return max(float((one - other).abs().max() / other.abs().max()) for one, other in pairs)


# What is said where vLLM has no class for a family; and what the trial lacks where something else is said.
_MISSING = ("not supported for now", "no vLLM implementation", "not supported anymore")
_LACKING = {
    "failed to be inspected": "vLLM's class of it wants more than the environment of the trial has, such as torchvision",
    "image processor": "vLLM wants its image processor, which a tiny checkpoint does not have",
    "configuration class": "transformers does not load its decoder alone, which is what a tiny checkpoint has",
}


def _failed(error: Exception) -> str:
    if any(one in str(error) for one in _MISSING):
        return NOT_THERE
    traceback.print_exc(file=sys.stderr)
    return f"{NOT_TRIED}: {lacking}" if (lacking := _lacking(error)) else f"{BREAKS}: {_line(error)}"


def _lacking(error: Exception) -> str | None:
    return next((what for said, what in _LACKING.items() if said in str(error)), None)


def _line(error: Exception) -> str:
    """The first line of an error that says something, without where things are."""
    said = re.sub(r"'[^']*/(plain|merged)'", "the checkpoint", str(error))
    said = re.sub(r"<class '(?:\w+\.)*(\w+)'>", r"\1", said)
    return short_error(error, said.partition("Value error, ")[2] or said)  # of its configuration, which pydantic checks
