"""A real tokenizer, small models, masks made from profiling them, and `clas` in this process, as fixtures."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before libraries read it: no test asks the Hub, or waits for one that does not answer
os.environ["OMP_NUM_THREADS"] = "1"  # of processes that tests start, for the reason that is given below

import machine_asked_once  # noqa: F401  (before the harness)
import own_tasks_once  # noqa: F401
import pytest
import torch
from hub_data import why_missing
from sketching import sketch
from small_models import Run, make_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from lm_eval_clas import MaskSet, NeuronCategorizer, ParallelInputBuilder, Profile, profile
from lm_eval_clas.commands.cli import main
from lm_eval_clas.neurons.profiling import profile_residual
from lm_eval_clas.neurons.residual_folder import ResidualProfile
from lm_eval_clas.texts.corpora import ParallelTexts

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
torch.set_num_threads(1)  # the models are so small that threads only get in each other's way


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "of a test with more than three cases, the first and the last alone; of one by families of decoders, one of each"
    parser.addoption("--few-cases", action="store_true", help=about)


def _few_cases(items: list[pytest.Item]) -> list[pytest.Item]:
    """What `--few-cases` leaves out."""
    cases: dict[tuple[Path, str, tuple[str, ...]], list[pytest.Item]] = {}
    for item in items:
        given = getattr(getattr(item, "callspec", None), "params", {})
        family = (given["family"], given.get("site", "")) if item.path.parent.name == "decoder" and "family" in given else ()
        cases.setdefault((item.path, getattr(item, "originalname", item.name), family), []).append(item)
    left_out: list[pytest.Item] = []
    for (_, _, family), several in cases.items():
        if family:
            left_out += several[1:]
        elif len(several) > 3:
            left_out += several[1:-1]
    return left_out


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out cases if asked to, skips what needs data that are not here, and puts files with slow tests, or many, first.

    At the end, one of them would keep one process busy while the others wait.
    """
    if config.getoption("few_cases"):
        left_out = set(_few_cases(items))
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        for marker in item.iter_markers("hub_data"):
            if reason := why_missing(*marker.args):
                item.add_marker(pytest.mark.skip(reason=reason))
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -tests[item.path]))


def pytest_collection_finish() -> None:
    """What was imported by now is no garbage ever; the collector, which the harness calls often, need not look through it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _loggers() -> None:
    """What a command or a fixture made quiet, or the harness's own set-up turned off, is loud again for the next test."""
    for name in ("lm_eval", "lm_eval.models", "lm_eval.models.hf_clas", "datasets", "huggingface_hub", "transformers"):
        logger = logging.getLogger(name)
        logger.setLevel(logging.NOTSET)
        logger.disabled, logger.propagate = False, True


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes as tokens, with BOS in front as Llama and Gemma have it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {letter: i + 3 for i, letter in enumerate(alphabet)}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_input_names=["input_ids", "attention_mask"],  # transformers 4 adds token types, which decoders do not take
    )


@pytest.fixture(scope="session")
def bare_tokenizer(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The same without BOS, as Qwen 2.5 and SmolLM2 have it: the first position holds a token of the text."""
    core = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    core.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", model_input_names=["input_ids", "attention_mask"]
    )


@pytest.fixture
def model() -> PreTrainedModel:
    """A fresh small Llama."""
    return make_model()


@pytest.fixture(scope="session")
def texts() -> ParallelTexts:
    """Six items of the shipped corpus in four languages."""
    return ParallelInputBuilder("mini", ["en", "hi", "de", "zh"], 6).build()


@pytest.fixture(scope="session")
def profiled(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts) -> Profile:
    """The small Llama's profile."""
    return profile(make_model(), tokenizer, texts, name="small-llama", max_tokens=200)


@pytest.fixture(scope="session")
def masks(profiled: Profile) -> MaskSet:
    """The small Llama's masks; the threshold is chosen so that every category occurs in the bridge."""
    return MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4")


@pytest.fixture(scope="session")
def residual(tokenizer: PreTrainedTokenizerFast, texts: ParallelTexts) -> ResidualProfile:
    """What leaves the small Llama's layers, on the texts of its profile."""
    return profile_residual(make_model(), tokenizer, texts, name="small-llama", max_tokens=200, batch_size=4)


@pytest.fixture(scope="session")
def full(profiled: Profile, residual: ResidualProfile) -> MaskSet:
    """The same masks with all that methods need: means, and what leaves the layers."""
    made = MaskSet.from_profile(profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4", keep_means=True)
    return made.with_residual(residual)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer: PreTrainedTokenizerFast) -> Path:
    """The small Llama as a checkpoint on disk, as `pretrained=` wants it."""
    folder = tmp_path_factory.mktemp("small-llama")
    make_model().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def chatty(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same checkpoint with a chat template."""
    folder = tmp_path_factory.mktemp("chatty") / "small-llama"
    shutil.copytree(checkpoint, folder)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}")
    return folder


@pytest.fixture
def families() -> Callable[..., PreTrainedModel]:
    """The maker of small models."""
    return make_model


@pytest.fixture
def clas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs `clas` in this process: exit code, standard output, standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["clas", *map(str, arguments)])
        monkeypatch.setattr(logging, "raiseExceptions", False)  # handlers of earlier runs hold a stream that is closed by now
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture is a dot, which takes no time; for tests of what happens around pictures."""
    sketch(monkeypatch)


@pytest.fixture
def small_study() -> dict[str, Any]:
    """A recipe that goes through every stage in seconds; it lacks the model."""
    part = {"corpus": "mini", "tune": ["clas_mini_nli_hi"], "evaluate": ["clas_mini_nli_hi", "clas_mini_nli_de"], "limit": 4}
    generation = {"tune": ["clas_mini_qa_hi"], "evaluate": ["clas_mini_qa_hi", "clas_mini_qa_de"], "limit": 2}
    return {
        "name": "small",
        "device": "cpu",
        "profile": {"samples": 6, "languages": ["en", "hi", "de"], "max_tokens": 60},
        "masks": {"bridge": "2-4", "threshold": 0.005},
        "tune": {"alphas": [-2, 2], "objective": "loglikelihood", "limit": 4},
        "evaluate": {
            "batch_size": 4,
            "runs": {"hf": {}, "clas": {"alpha": "tuned"}},
        },
        "analyse": {"geometry_samples": 4},
        "parts": {"nli": part, "qa": {**part, **generation}},
    }


@pytest.fixture
def profile_folder(clas: Run, checkpoint: Path, tmp_path: Path) -> Path:
    out = tmp_path / "profile"
    code, _, error = clas(
        "profile", "--model", checkpoint, "--corpus", "mini", "--languages", "en,hi,de", "--samples", 3, "--out", out,
        "--max-tokens", 60, "--model-name", "small", "--level", "instance", "--device", "cpu",
    )  # fmt: skip
    assert code == 0, error
    return out


@pytest.fixture
def source(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    """A small Llama in several shards, whose vocabulary is exactly the tokenizer's: the harness resizes others for adapters."""
    from exporting import small_model

    folder = tmp_path / "model"
    small_model("llama", vocab_size=len(tokenizer)).save_pretrained(folder, max_shard_size="20KB")
    tokenizer.save_pretrained(folder)
    (folder / "generation_config.json").write_text('{"temperature": 0.7, "do_sample": true}')
    (folder / "LICENSE").write_text("Terms.")
    (folder / "pytorch_model.bin.index.json").write_text("{}")
    (folder / "README.md").write_text("The base model's.")
    return folder


@pytest.fixture
def source_masks(source: Path) -> MaskSet:
    """Masks of random neurons that fit it."""
    from exporting import made_masks

    return made_masks(AutoModelForCausalLM.from_pretrained(source))
