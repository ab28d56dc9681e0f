"""Every option of every command changes something, where it acts: in what is written or printed, or in what the model is asked.

The options come from the application itself, and so do the arguments of `hf-clas` and the fields of recipes: one without a case
fails. A case runs a command twice, without and with its option, and looks at one thing that must differ.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, wraps
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, get_args

import numpy as np
import pytest
import torch
import typer
from lm_eval.api.instance import Instance
from lm_eval.tasks import TaskManager
from logged_runs import logged_run
from made_runs import STEERED, draw, write_run
from mixtures_made import mixture_profile
from prompts_seen import prompts_of
from pydantic import BaseModel
from rich.console import Console
from sketching import sketch
from small_models import make_model
from transformers import PreTrainedTokenizerFast
from transformers.models.llama.modeling_llama import LlamaModel

from lm_eval_clas import CLASLM, ClasError, MaskSet
from lm_eval_clas.base.job_progress import JobProgress
from lm_eval_clas.commands.application import app, console
from lm_eval_clas.commands.cli import main
from lm_eval_clas.harness.fast_lm import FastLM
from lm_eval_clas.masks.strengths import Setting
from lm_eval_clas.neurons.profile_folder import Profile
from lm_eval_clas.neurons.residual_folder import ResidualProfile
from lm_eval_clas.steering.options import SteeringOptions
from lm_eval_clas.study.recipe import Part, StudyRecipe
from lm_eval_clas.study.stages import StudyStages
from lm_eval_clas.tuning.choosing import Unit, choose

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Case:
    """What an option is given, and what must change.

    Attributes:
        value: True for a switch, None to leave out an option of the base, a tuple for one that takes several words.
        see: `code`, `stdout`, `names` (of files), a file, or of the model: `shapes` (of inputs), `dtypes`, `loads` (arguments
            of loading), `prompts`; `seeds` of random numbers; or `calls`, of what is replaced here.
        beside: options of both runs.
        along: options that come with it.
    """

    value: Any
    see: str
    beside: dict[str, Any] = field(default_factory=dict)
    along: dict[str, Any] = field(default_factory=dict)


_MODEL = {"model": "{model}", "device": "cpu"}
BASES: dict[str, dict[str, Any]] = {
    "profile": {**_MODEL, "corpus": "mini", "languages": "en,hi", "samples": 2, "max_tokens": 20, "out": "{tmp}/out"},
    "masks": {"profile": "{profile}", "threshold": 0.005, "bridge": "2-4", "out": "{tmp}/out"},
    "inspect": {"masks": "{masks}"},
    "tune": {
        **_MODEL, "masks": "{tmp}/masks", "tasks": "clas_mini_nli_hi", "alphas": "3", "limit": 3, "out": "{tmp}/out",
        "objective": "loglikelihood",
    },
    "route": {"tasks": "xnli_hi,wmt16-de-en", "json": True},
    "table": {"results": "{runs}", "tasks": "xnli", "resamples": 100, "format": "json"},
    "verify": {"results": "{steered}", "items": 1, "device": "cpu", "as_json": True},
    "geometry": {
        **_MODEL, "masks": "{masks}", "corpus": "mini", "languages": "en,hi", "samples": 3, "max_tokens": 20, "alpha": "2.0",
        "out": "{tmp}/out",
    },
    "stability": {"a": "{profile}", "b": "{few}", "threshold": 0.005, "bridge": "2-4"},
    "causes": {
        "table": "{table}", "masks": "{masks}", "model": "{model}", "run": "clas", "corpus": "{texts}", "out": "{tmp}/c",
    },
    "report": {"folder": "{study}", "out": "{tmp}/a.html"},
    "paper": {"recipe": "{recipe}", "only": "profile", "out": "{tmp}/out"},
    "export": {"masks": "{masks}", "model": "{model}", "language": "hi", "format": "ia3", "alpha": "-2", "out": "{tmp}/out"},
    "push": {"masks": "{masks}", "repository": "user/name"},
    "families": {"names": "llama"},
    "demo": {"out": "{tmp}/out"},
    "serve": {"model": "{model}", "masks": "{masks}"},
    "eval": {}, "tasks": {}, "demo-model": {},
}  # fmt: skip

_ADAPTER, _TENSORS, _CONFIG = "out/adapter_model.safetensors", "out/masks.safetensors", "out/clas_config.json"
_SUMS, _GEOMETRY, _SCORES = "out/hi.safetensors", "out/geometry.json", "out/scores/clas_mini_nli_hi.json"
_CHOSEN = "out/tuned.json"
_LAPE = {"specific": "lape"}
_ADD = {"add_language": "fr={plain}", "model": "{model}", "device": "cpu"}
CASES: dict[str, dict[str, Case]] = {
    "profile": {
        "model": Case("{other}", _SUMS),
        "corpus": Case("{texts}", _SUMS),
        "out": Case("{tmp}/elsewhere", "names"),
        "languages": Case("en,hi,de", "names"),
        "samples": Case(1, _SUMS),
        "half": Case("first", _SUMS),
        "batch_size": Case(1, "shapes"),
        "max_tokens": Case(10, _SUMS),
        "first_token": Case("keep", "out/clas_profile.json"),
        "level": Case("instance", "names"),
        "model_args": Case("dtype=bfloat16", "dtypes"),
        "model_name": Case("named", "out/clas_profile.json"),
        "device": Case("cpu:0", "loads"),
        "site": Case("attn", _SUMS),
        "projection": Case("*.self_attn.o_proj", _SUMS),
    },
    "masks": {
        "profile": Case("{few}", _TENSORS),
        "out": Case("{tmp}/elsewhere", "names"),
        "statistic": Case("mean-abs", _TENSORS),
        "tokens": Case("last", _TENSORS),
        "by": Case("head", _TENSORS, {"profile": "{heads}"}),
        "threshold": Case(0.02, _TENSORS),
        "anchor": Case("hi", _CONFIG),
        "bridge": Case("3-4", _CONFIG),
        "exclude_last": Case(0, "code", {"bridge": "auto", "threshold": 0}),
        "level": Case("instance", _CONFIG, {"threshold": 0}),
        "beta": Case(0.7, _CONFIG),
        "gamma": Case(0.7, _CONFIG),
        "min_tokens": Case(300, _CONFIG, {"profile": "{mixture}", "bridge": "1-2"}),
        "keep_means": Case(True, "names"),
        "residual": Case("{residual}", "names"),
        "specific": Case("lape", _TENSORS),
        "specific_languages": Case("de,hi", _TENSORS, {"specific": "{list}", "specific_languages": "hi,de"}),
        "lape_top": Case(0.2, _TENSORS, _LAPE),
        "lape_percentile": Case(0.1, _TENSORS, {**_LAPE, "lape_top": 0.3}),
        "add_language": Case("fr={plain}", _TENSORS, along={"model": "{model}", "device": "cpu"}),
        "model": Case("{other}", _TENSORS, _ADD),
        "model_args": Case("dtype=bfloat16", "dtypes", _ADD),
        "device": Case("cpu:0", "loads", _ADD),
        "as_json": Case(True, "stdout"),
        "force": Case(True, "code", {"out": "{tmp}/taken"}),
    },
    "inspect": {
        "masks": Case("{fewer}", "stdout"),
        "as_json": Case(True, "stdout"),
        "plot": Case("{tmp}/picture.png", "names"),
        "curves": Case("{tmp}/curves.pdf", "names", {"masks": "{tuned}"}),
        "experts": Case("{tmp}/experts.png", "names", {"masks": "{routed}"}),
        "width": Case("3.25", "a.png", {"plot": "{tmp}/a.png"}),
        "force": Case(True, "code", {"plot": "{tmp}/taken/a.png"}),
    },
    "tune": {
        "model": Case("{other}", _SCORES),
        "masks": Case("{tmp}/fewer", _SCORES),
        "tasks": Case("clas_mini_nli_de", "names"),
        "out": Case("{tmp}/elsewhere", "names"),
        "method": Case("uniform", _SCORES),
        "alphas": Case("-2", _SCORES),
        "betas": Case("0.1", _SCORES),
        "gammas": Case("0.7", _SCORES),
        "layers": Case("2", _SCORES),
        "objective": Case("metric", _SCORES),
        "metric": Case("acc_norm", "code", {"objective": "metric"}),
        "shared": Case(True, "chosen", {"tasks": "clas_mini_nli_hi,clas_mini_qa_de", "alphas": "-3,-1,1,3"}),
        "guard": Case(True, "chosen"),
        "pair": Case("source", "out/scores/own_mt_de-hi.json", {"tasks": "own_mt_de-hi", "include_path": "{tasks}"}),
        "limit": Case(2, "prompts"),
        "num_fewshot": Case(1, "prompts"),
        "apply_chat_template": Case(True, "prompts", {"model": "{chatty}"}),
        "include_path": Case("{tasks}", "code", {"tasks": "own_task_hi"}),
        "batch_size": Case("1", "shapes"),
        "model_args": Case("dtype=bfloat16", "dtypes"),
        "device": Case("cpu:0", "loads"),
        "cluster": Case("none", _CHOSEN),
        "seed": Case(5, _CHOSEN, {"cluster": "none", "limit": 8}),  # enough for an interval
        "as_json": Case(True, "stdout"),
        "engine": Case("vllm", "code"),  # the device is given
    },
    "route": {
        "tasks": Case("xnli_de", "stdout"),
        "masks": Case("{masks}", "stdout"),
        "languages": Case("hi,de", "stdout"),
        "pair": Case("source", "stdout"),
        "texts": Case(2, "stdout", {"tasks": "clas_mini_qa"}),
        "include_path": Case("{tasks}", "code", {"tasks": "own_task_hi"}),
        "json": Case(None, "stdout"),
    },
    "table": {
        "results": Case("{graded}", "stdout", {"tasks": None}),
        "baseline": Case("clas alpha 1", "stdout"),
        "tasks": Case("xquad", "stdout", {"results": "{both}"}),
        "metric": Case("f1", "code"),
        "languages": Case("rows", "stdout", {"format": "md"}),
        "format": Case("latex", "stdout"),
        "siunitx": Case(True, "stdout", {"format": "latex"}),
        "out": Case("{tmp}/tables", "names"),
        "cited": Case(True, "stdout"),
        "without_anchor": Case(True, "stdout"),
        "cluster": Case("none", "stdout", {"results": "{together}"}),
        "resamples": Case(200, "stdout", {"results": "{graded}", "tasks": "xquad"}),
        "seed": Case(1, "stdout", {"results": "{graded}", "tasks": "xquad"}),
        "as_json": Case(True, "stdout", {"format": None}),
        "force": Case(True, "code", {"out": "{tmp}/taken"}),
    },
    "verify": {
        "results": Case("{steered2}", "stdout"),
        "model": Case("{other}", "code"),
        "masks": Case("{fewer}", "code"),
        "items": Case(2, "stdout"),
        "seed": Case(1, "stdout"),
        "device": Case("cpu:0", "loads"),
        "as_json": Case(None, "stdout"),
    },
    "geometry": {
        "model": Case("{other}", _GEOMETRY),
        "masks": Case("{fewer}", _GEOMETRY),
        "corpus": Case("{texts}", _GEOMETRY),
        "out": Case("{tmp}/elsewhere", "names"),
        "alpha": Case("3.0", _GEOMETRY),
        "beta": Case("0.1", _GEOMETRY),
        "gamma": Case("0.7", _GEOMETRY),
        "layers": Case("2", _GEOMETRY),
        "method": Case("uniform", _GEOMETRY),
        "specific_scope": Case("own", _GEOMETRY),
        "partial_scope": Case("anchor", _GEOMETRY),
        "languages": Case("en,hi,de", _GEOMETRY),
        "samples": Case(2, _GEOMETRY),
        "batch_size": Case(1, "shapes"),
        "max_tokens": Case(10, _GEOMETRY),
        "model_args": Case("dtype=bfloat16", "dtypes"),
        "model_name": Case("named", _GEOMETRY),
        "device": Case("cpu:0", "loads"),
        "projection": Case("*.self_attn.o_proj", "code"),
        "seed": Case(1, _GEOMETRY, {"method": "random"}),
        "plot": Case("{tmp}/points.pdf", "calls"),
        "width": Case("3.25", "calls"),
        "as_json": Case(True, "stdout"),
        "force": Case(True, "code", {"out": "{tmp}/taken"}),
    },
    "stability": {
        "a": Case("{few}", "stdout"),
        "b": Case("{profile}", "stdout"),
        "ceiling": Case(("{first}", "{second}"), "stdout"),
        "out": Case("{tmp}/s.json", "names"),
        "as_json": Case(True, "stdout"),
        "force": Case(True, "code", {"out": "{tmp}/taken/a.json"}),
        "statistic": Case("mean-abs", "stdout"),
        "tokens": Case("last", "stdout"),
        "threshold": Case(0.02, "stdout"),
        "bridge": Case("3-4", "stdout"),
        "exclude_last": Case(0, "code", {"bridge": "auto", "threshold": 0}),
    },
    "causes": {
        "table": Case("{table2}", "c"),
        "masks": Case("{fewer}", "code"),  # not those of the run
        "model": Case("{words}", "c"),
        "run": Case("other", "c"),
        "corpus": Case("mini", "c"),
        "geometry": Case("{moved}", "c"),
        "out": Case("{tmp}/elsewhere", "names"),
        "seed": Case(1, "seeds"),
        "as_json": Case(True, "stdout"),
        "force": Case(True, "code", {"out": "{tmp}/taken/a.json"}),
    },
    "report": {
        "folder": Case("{study2}", "a.html"),
        "out": Case("{tmp}/b.html", "names"),
        "force": Case(True, "code", {"out": "{tmp}/taken/a.html"}),
    },
    "paper": {
        "recipe": Case("{recipe2}", "names"),
        "out": Case("{tmp}/elsewhere", "names"),
        "only": Case("masks", "code"),
        "plan": Case(True, "names"),
        "calibrate": Case(True, "stdout", {"plan": True}),
        "json": Case(True, "stdout", {"plan": True}),
    },
    "export": {
        "masks": Case("{fewer}", _ADAPTER),
        "model": Case("{other}", "out/model.safetensors", {"format": "merged"}),
        "language": Case("hi,de", "names"),
        "format": Case("merged", "names"),
        "out": Case("{tmp}/elsewhere", "names"),
        "alpha": Case("3", _ADAPTER),
        "task": Case("clas_mini_nli", _ADAPTER, {"masks": "{tuned}", "alpha": "tuned", "task": "clas_mini_qa"}),
        "beta": Case(0.1, _ADAPTER),
        "gamma": Case(0.7, _ADAPTER),
        "layers": Case("2", _ADAPTER),
        "method": Case("uniform", _ADAPTER),
        "specific_scope": Case("own", _ADAPTER),
        "partial_scope": Case("anchor", _ADAPTER),
        "seed": Case(1, _ADAPTER, {"method": "random"}),
        "projection": Case("*.self_attn.o_proj", "code"),
        "revision": Case("some-branch", "loads"),
        "trust_remote_code": Case(True, "loads"),
        "force": Case(True, "code", {"out": "{tmp}/carded"}),
    },
    "push": {
        "masks": Case("{fewer}", "calls"),
        "repository": Case("user/other", "calls"),
        "private": Case(True, "calls"),
        "revision": Case("branch", "calls"),
        "message": Case("Better masks", "calls"),
        "force": Case(True, "code", {"repository": "user/taken"}),
    },
    "families": {"names": Case("opt", "stdout"), "markdown": Case(True, "stdout"), "as_json": Case(True, "stdout")},
    "demo": {
        "data": Case("hub", "calls"),
        "out": Case("{tmp}/elsewhere", "names"),
        "alpha": Case(-3.0, "calls"),
        "limit": Case(2, "calls"),
        "as_json": Case(True, "stdout"),
    },
    "serve": {
        "model": Case("{other}", "calls"),
        "masks": Case("{fewer}", "calls"),
        "alpha": Case("2", "calls"),
        "beta": Case(0.7, "calls"),
        "gamma": Case(0.7, "calls"),
        "layers": Case("3", "calls"),
        "specific_scope": Case("own", "calls"),
        "partial_scope": Case("own", "calls"),
        "method": Case("uniform", "calls"),
        "language": Case("hi", "calls"),
        "seed": Case(3, "calls", {"method": "random"}),
    },
    "eval": {}, "tasks": {}, "demo-model": {},
}  # fmt: skip
# Every command has this one; it has a test of its own.
QUIET = "quiet"
# Further options are those of another command line, the harness's or vLLM's.
HANDED_OVER = {"eval", "serve"}


def cases() -> Iterator[tuple[str, str]]:
    for name, command in COMMANDS.items():
        yield from ((name, str(option.name)) for option in command.params if option.name != QUIET)


def test_every_option_has_a_case() -> None:
    options = {name: {str(option.name) for option in command.params} for name, command in COMMANDS.items()}
    assert {name: {*by_option, QUIET} for name, by_option in CASES.items()} == options
    assert {name for name, command in COMMANDS.items() if command.context_settings.get("ignore_unknown_options")} == HANDED_OVER


def written(place: Path, file: str, text: str) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    (place / file).write_text(text, encoding="utf-8")
    return place / file


@pytest.fixture(scope="module")
def things(
    tmp_path_factory: pytest.TempPathFactory,
    checkpoint: Path,
    chatty: Path,
    tokenizer: PreTrainedTokenizerFast,
    masks: MaskSet,
    profiled: Profile,
) -> dict[str, str]:
    """What the values of options name, by its name."""
    from synthetic_study import write_study
    from tokenizers import Tokenizer, models, pre_tokenizers

    from lm_eval_clas.neurons.instances import profile_instances
    from lm_eval_clas.neurons.profiling import profile, profile_residual
    from lm_eval_clas.texts.corpora import Half, ParallelInputBuilder

    place = tmp_path_factory.mktemp("options")
    found: dict[str, Path] = {"model": checkpoint, "chatty": chatty}
    found["other"] = place / "other"
    make_model(seed=1).save_pretrained(place / "other")
    tokenizer.save_pretrained(place / "other")

    texts = {
        "en": ["A stork.", "Some tea.", "Rain."],
        "hi": ["एक सारस।", "चाय।", "बारिश।"],
        "de": ["Ein Storch.", "Tee.", "Regen."],
    }
    for language, lines in texts.items():
        written(place / "texts", f"{language}.txt", "\n".join(lines) + "\n")
    found["texts"] = place / "texts"
    found["plain"] = written(place, "fr.txt", "Une cigogne.\nDu thé.\n")
    for name, samples, site in (("profile", 3, "mlp"), ("few", 2, "mlp"), ("heads", 2, "attn")):
        found[name] = place / name
        built = ParallelInputBuilder("mini", ["en", "hi", "de"], samples).build()
        options: dict[str, Any] = {"max_tokens": 30, "site": site}
        profile(make_model(), tokenizer, built, name="small", out=found[name], **options)
        if name == "profile":
            profile_instances(make_model(), tokenizer, built, found[name], **options)

    found["residual"] = place / "residual"
    built = ParallelInputBuilder("mini", ["en", "hi", "de"], 3).build()
    profile_residual(make_model(), tokenizer, built, name="small", out=found["residual"], max_tokens=30)

    for half in get_args(Half):
        found[half] = place / half
        built = ParallelInputBuilder("mini", ["en", "hi", "de"], 4, half=half).build()
        profile(make_model(), tokenizer, built, name="small", out=found[half], max_tokens=30)

    settings = tuple(Setting(alpha, 0.4, 0.2, (2,)) for alpha in (0, 2, -2))
    units = [
        Unit(family, "hi", ("t",), "metric", "acc", "", [[0.0] * 3, [good] * 3, [-good] * 3])
        for family, good in {"clas_mini_nli": 1.0, "clas_mini_qa": -1.0}.items()
    ]
    fewer = MaskSet.from_profile(Profile.load_finished(found["few"]), bridge="3-4")
    for name, made in {"masks": masks, "fewer": fewer, "tuned": masks.with_tuned(choose(units, settings))}.items():
        found[name] = made.save(place / name)
    means = MaskSet.from_profile(Profile.load_finished(found["profile"]), bridge="2-4", keep_means=True)
    found["rich"] = means.with_residual(ResidualProfile.load_finished(found["residual"])).save(place / "rich")
    mixture_profile().save(place / "mixture")
    found["mixture"] = place / "mixture"
    found["routed"] = MaskSet.from_profile(mixture_profile(), bridge="1-2").save(place / "routed")
    found["list"] = place / "some.neuron.pth"
    torch.save([[torch.tensor([n, 7]) for _ in range(6)] for n in (1, 2)], found["list"])

    for name, alpha in {"steered": -4, "steered2": 3}.items():
        found[name] = logged_run(place / name, checkpoint, masks, ["clas_mini_nli_hi"], alpha=alpha)

    languages = ("en", "hi", "de")
    for name, graded in {"runs": False, "graded": True}.items():
        found[name] = place / name
        write_run(found[name] / "hf", draw(1, 30, graded, languages))
        write_run(found[name] / "clas", draw(2, 30, graded, languages), STEERED)
    found["together"] = place / "together"
    of_groups = {f"xnli_{one}": [{"cluster": number // 3} for number in range(30)] for one in languages}
    for label, seed, clas in (("hf", 1, None), ("clas", 2, STEERED)):
        write_run(found["together"] / label, draw(seed, 30, False, languages), clas, documents=of_groups)
    found["both"] = place / "both"
    for label, seed, clas in (("hf", 1, None), ("clas", 2, STEERED)):
        write_run(found["both"] / label, draw(seed, 30, False, languages) | draw(seed, 30, True, languages), clas)
    for name, seed in (("table", 3), ("table2", 4)):
        runs = {"hf": 1, "clas": seed, "other": seed + 2}
        labelled = [f"{label}={_run_of(place / name / label, number, masks)}" for label, number in runs.items()]
        _clas("table", *labelled, "--out", place / name)
        found[name] = place / name / "xnli.json"
    core = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]").save_pretrained(place / "words")
    found["words"] = place / "words"
    written(place / "words", "config.json", (checkpoint / "config.json").read_text())
    _clas(
        "geometry", *("--model", checkpoint, "--masks", place / "masks", "--corpus", place / "texts"),
        *("--out", place / "moved", "--device", "cpu", "--alpha", 3),  # as 'clas' of the first table
    )  # fmt: skip
    found["moved"] = place / "moved" / "geometry.json"

    for name, seed in (("study", 4), ("study2", 5)):
        found[name] = write_study(place / name, 2, parts=1, seed=seed)
    for name, part in (("recipe", "one"), ("recipe2", "two")):
        parts = {part: {"corpus": "mini", "evaluate": ["clas_mini_nli_hi"], "limit": 1}}
        steps = {"profile": {"samples": 1, "languages": ["en", "hi"], "max_tokens": 10, "halves": False}}
        evaluate = {"runs": {"hf": {}, "clas": {"alpha": 1}}, "batch_size": 1}
        recipe = {"name": "r", "model": str(checkpoint), "device": "cpu", "parts": parts, "evaluate": evaluate, **steps}
        found[name] = written(place, f"{name}.yaml", json.dumps(recipe | {"analyse": {"geometry_samples": None}}))
    shipped_task = "clas_mini_nli_hi"
    written(place / "tasks", "own.yaml", f"include: {_task_file(shipped_task)}\ntask: own_task_hi\n")
    pairs = json.dumps([{"text": text, "label": 0} for text in ("Der Storch baut ein Nest.", "Tee wächst auf Hügeln.")])
    data = written(place, "pairs.json", pairs)
    pair = {
        **{"task": "own_mt_de-hi", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(data)}}},
        **{"test_split": "test", "output_type": "multiple_choice", "doc_to_text": "{{text}}", "doc_to_target": "label"},
        **{"doc_to_choice": ["yes", "no way"], "metric_list": [{"metric": "acc"}]},
    }
    written(place / "tasks", "pair.yaml", json.dumps(pair))
    found["tasks"] = place / "tasks"
    return {name: str(path) for name, path in found.items()}


def _run_of(folder: Path, seed: int, masks: MaskSet) -> Path:
    """A run of that alpha; of alpha 1, one without steering."""
    languages = ("en", "hi", "de", "zh")
    return write_run(
        folder, draw(seed, 30, tasks=languages), _steered(masks, languages, {"alpha": seed}) if seed > 1 else None
    ).parent


def _steered(masks: MaskSet, languages: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
    """`config.clas` of a run that steered with these masks in these languages."""
    steering = SteeringOptions.parse(masks, **options)
    told = {**asdict(steering), "layers": list(steering.layers)}
    return {**STEERED, **told, "masks_hash": masks.hash, "languages": {one: {} for one in languages}}


def _task_file(name: str) -> Path:
    from lm_eval_clas.disk.files import shipped

    return next(path for path in shipped("tasks").rglob("*.yaml") if f"task: {name}\n" in path.read_text(encoding="utf-8"))


def _clas(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["clas", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
    return code, out.getvalue(), err.getvalue()


class Api:
    """In the place of the Hub's client."""

    calls: ClassVar[list[Any]] = []

    def __init__(self, **_: Any) -> None: ...

    def model_info(self, repository: str, **_: Any) -> Any:
        names = ["README.md"] if repository == "user/taken" else []
        return SimpleNamespace(sha=None, siblings=[SimpleNamespace(rfilename=name, lfs=None) for name in names])

    def hf_hub_download(self, *_: Any, **__: Any) -> str:
        return __file__  # a text that is none of ours

    def create_repo(self, *arguments: Any, **options: Any) -> None:
        self.calls.append(("repo", arguments, options))

    def create_branch(self, *arguments: Any, **options: Any) -> None:
        self.calls.append(("branch", arguments, options))

    def create_commit(self, repository: str, files: list[Any], **options: Any) -> Any:
        sizes = [(one.path_in_repo, len(Path(one.path_or_fileobj).read_bytes())) for one in files]
        self.calls.append(("commit", repository, sizes, options))
        return type("Commit", (), {"oid": "0" * 40})


def replace_what_is_big_or_far(patch: pytest.MonkeyPatch, seen: dict[str, Any], model: str) -> None:
    """Spies on models, and stands in for the Hub, for Gemma and for pictures that take seconds."""
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoConfig

    from lm_eval_clas.demo import demo_run
    from lm_eval_clas.engine.server import server_start
    from lm_eval_clas.geometry import geometry_run
    from lm_eval_clas.harness import task_loading

    forward, load, read = LlamaModel.forward, HFLM.__init__, AutoConfig.from_pretrained

    def spied_forward(self: Any, *arguments: Any, **options: Any) -> Any:
        inputs = options["input_ids"] if "input_ids" in options else arguments[0]
        seen["shapes"].append(tuple(inputs.shape))
        seen["dtypes"].add(str(self.dtype))
        return forward(self, *arguments, **options)

    def spied_load(self: Any, pretrained: Any, **options: Any) -> None:
        seen["loads"].append((str(pretrained), sorted((name, str(value)) for name, value in options.items())))
        load(self, pretrained, **options)

    def spied_config(*arguments: Any, **options: Any) -> Any:
        seen["loads"].append(sorted((name, str(value)) for name, value in options.items()))
        return read(*arguments, **options)

    patch.setattr(LlamaModel, "forward", wraps(forward)(spied_forward))
    patch.setattr(HFLM, "__init__", spied_load)
    patch.setattr(AutoConfig, "from_pretrained", spied_config)
    seen["prompts"] = prompts_of(FastLM, patch)
    generator = np.random.default_rng

    def seeded(seed: Any = None) -> Any:
        seen["seeds"] += [seed] if isinstance(seed, int) else []
        return generator(seed)

    patch.setattr(np.random, "default_rng", seeded)
    Api.calls = seen["calls"]
    patch.setattr("huggingface_hub.HfApi", Api)
    patch.setattr(geometry_run, "plot_geometry", lambda *given: seen["calls"].append((given[-3].name, given[-1])))
    patch.setattr(task_loading, "_manager", _few_tasks)
    patch.setattr(server_start, "started", lambda given, served: seen["calls"].append((given, served, served.tables.rows)))
    patch.setattr(demo_run, "gemma", lambda: model)
    patch.setattr(demo_run, "score_table", lambda *_: "a table")
    patch.setattr(demo_run, "score_rows", lambda *_: ["rows"])
    patch.setattr(demo_run, "_profile", lambda _, data, *__: seen["calls"].append(data) or MaskSet.load("gemma-3-270m"))
    patch.setattr(demo_run, "_evaluate", lambda *arguments: seen["calls"].append(_without_paths(arguments[:3])) or {})


@cache
def _few_tasks(include_path: tuple[str, ...], *, defaults: bool) -> Any:
    """The index of tasks without the harness's own, which take seconds: names that are nowhere are looked up there."""
    return TaskManager(include_path=list(include_path), include_defaults=False)


def _without_paths(arguments: Any) -> str:
    name, options, samples = arguments
    return json.dumps([name, {key: value for key, value in options.items() if key != "masks"}, samples])


_SEEN: dict[str, dict[str, Any]] = {}


def look(command: str, given: dict[str, Any], things: dict[str, str], place: Path) -> dict[str, Any]:
    """Runs a command, and tells all that it did."""
    for name in ("a.html", "a.json", "a.png", "clas_config.json", "geometry.json", "xnli.json"):
        written(place / "taken", name, "somebody else's")
    written(place / "carded", "README.md", "Somebody else's.")
    if command == "tune":  # writes into them
        shutil.copytree(things["masks"], place / "masks")
        shutil.copytree(things["fewer"], place / "fewer")
    words: list[str] = []
    for option in COMMANDS[command].params:
        value = given.get(str(option.name))
        values = value if isinstance(value, tuple) else (value,)
        texts = [str(one).format(tmp=place, **things) for one in values]
        if value is None:
            continue
        if option.param_type_name == "argument":
            words += texts
        elif value is True:
            words.append(option.opts[0])
        else:
            words += [f"{option.opts[0]}={texts[0]}"] if len(texts) == 1 else [option.opts[0], *texts]
    seen: dict[str, Any] = {"shapes": [], "dtypes": set(), "loads": [], "prompts": [], "calls": [], "seeds": []}
    with pytest.MonkeyPatch.context() as patch:
        replace_what_is_big_or_far(patch, seen, things["model"])
        if command in ("report", "tune"):  # no option of theirs changes a picture alone
            sketch(patch)
        if command == "paper":  # what it timed is kept there
            patch.setenv("LM_EVAL_CLAS_CACHE", str(place.parent / f"cache-of-{place.name}"))
        code, out, err = _clas(command, *words)
    files = {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}
    plain = {name: value.replace(str(place), "TMP") for name, value in (("stdout", out), ("stderr", err))}
    chosen = {name: _chosen(content) for name, content in files.items() if name == _CHOSEN}
    return {"code": code, **plain, "names": sorted(files), **files, **seen, "chosen": chosen}


def _chosen(content: bytes) -> Any:
    return {(f, one): tuned["chosen"] for f, by in json.loads(content).items() for one, tuned in by.items()}


def observed(command: str, given: dict[str, Any], things: dict[str, str], places: pytest.TempPathFactory) -> dict[str, Any]:
    """`look`, once for the same command line."""
    key = json.dumps([command, given], default=str)
    if key not in _SEEN:
        _SEEN[key] = look(command, given, things, places.mktemp("run"))
    return _SEEN[key]


@pytest.mark.parametrize(("command", "option"), list(cases()))
def test_an_option_changes_something(
    command: str, option: str, things: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    case = CASES[command][option]
    base = {**BASES[command], **case.beside}
    before = observed(command, base, things, tmp_path_factory)
    after = observed(command, {**base, **case.along, option: case.value}, things, tmp_path_factory)
    if case.see != "code":
        assert (before["code"], after["code"]) == (0, 0), before["stderr"] + after["stderr"]
    assert "Traceback" not in before["stderr"] + after["stderr"]
    assert before[case.see] != after[case.see]


RUN = [command for command in BASES if CASES[command]]


@pytest.mark.parametrize("command", RUN)
def test_the_same_options_change_nothing(
    command: str, things: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Otherwise the cases would prove nothing."""
    before = observed(command, BASES[command], things, tmp_path_factory)
    after = look(command, BASES[command], things, tmp_path_factory.mktemp("again"))
    for see in {case.see for case in CASES[command].values()} & set(before):
        assert before[see] == after[see], see


@pytest.mark.parametrize("command", RUN)
def test_a_quiet_command_prints_results_and_errors_only(
    command: str, things: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    before = observed(command, BASES[command], things, tmp_path_factory)
    after = look(command, {**BASES[command], QUIET: True}, things, tmp_path_factory.mktemp("quiet"))
    # In this process tqdm was imported long before; test_bars_of_commands.py has processes of their own.
    told = [piece for piece in re.split("[\r\n]", after["stderr"]) if piece and "it/s" not in piece]
    assert (after["code"], told) == (before["code"], [])
    assert [line for line in before["stdout"].splitlines() if line in after["stdout"]] == after["stdout"].splitlines()
    assert not any(note in after["stdout"] for note in ("Next", "Wrote", "Profiled"))
    assert before["names"] == after["names"]


# What makes a command print its tables.
TABLES: dict[str, dict[str, Any]] = {
    "masks": {}, "inspect": {}, "tune": {}, "geometry": {}, "stability": {}, "causes": {}, "families": {},
    "route": {"json": None}, "table": {"format": None, "languages": "columns"}, "verify": {"as_json": None},
}  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.+-])[-+]?[0-9]*[.,]?[0-9]+(?:[.,][0-9]+)*%?(?![\w.])")


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("command", TABLES)
def test_a_narrow_screen_folds_tables_and_keeps_numbers(
    command: str, columns: int, things: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    printed = []
    for width in (250, columns):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(console, "_width", width)
            seen = look(command, {**BASES[command], **TABLES[command]}, things, tmp_path_factory.mktemp("narrow"))
        assert seen["code"] == 0, seen["stderr"]
        printed.append(seen["stdout"])
    wide, narrow = (Counter(_NUMBER.findall(text)) for text in printed)
    assert not wide - narrow
    assert "…" not in printed[1]
    assert max(len(line) for line in printed[1].splitlines() if "─" in line) <= columns


# The arguments of `hf-clas` that `hf` does not have.

_STRONG = {"alpha": 4.0}
ARGUMENTS: dict[str, tuple[Any, dict[str, Any]]] = {  # what it is given, beside what
    "pretrained": (1, _STRONG),
    "masks": ("fewer", _STRONG),
    "alpha": (-4.0, {}),
    "beta": (0.9, _STRONG),
    "gamma": (0.9, _STRONG),
    "layers": ("2", _STRONG),
    "specific_scope": ("own", _STRONG),
    "partial_scope": ("anchor", _STRONG),
    "method": ("uniform", _STRONG),
    "seed": (1, {**_STRONG, "method": "random"}),
    "language": ("de", _STRONG),
    "unseen": ("shared", _STRONG),
    "pair": ("source", _STRONG),
    "projection": ("*.self_attn.o_proj", _STRONG),
    "scoring": ("stock", _STRONG),
}


def test_every_argument_of_hf_clas_has_a_case() -> None:
    taken = set(inspect.signature(CLASLM.__init__).parameters) | set(inspect.signature(FastLM.__init__).parameters)
    assert set(ARGUMENTS) == taken - {"self", "kwargs"}


def answers(tokenizer: PreTrainedTokenizerFast, things: dict[str, str], options: dict[str, Any]) -> Any:
    """Log-likelihoods in languages that the masks have and that they do not have, and how often the logits were cut."""
    options = dict(options)
    cut: list[int] = []
    model = make_model(seed=options.pop("pretrained", 0))
    model.get_output_embeddings().register_forward_hook(lambda _, inputs, __: cut.append(inputs[0].shape[-2]))
    try:
        lm = CLASLM(model, masks=things[options.pop("masks", "masks")], tokenizer=tokenizer, batch_size=4, **options)
    except ClasError:
        return "refused"
    texts = {"hi": "चाय गीली", "de": "Tee wächst", "fr": "Le thé pousse"}
    asked = [Instance("loglikelihood", {}, (text, " yes"), 0, (f"test_{code}", 0, 1)) for code, text in texts.items()]
    asked.append(Instance("loglikelihood", {}, (texts["hi"], " yes"), 0, ("test_hi-en", 0, 1)))
    return [round(answer[0], 4) for answer in lm.loglikelihood(asked)], cut


@pytest.mark.parametrize("argument", ARGUMENTS)
def test_an_argument_of_hf_clas_changes_answers(
    argument: str, tokenizer: PreTrainedTokenizerFast, things: dict[str, str]
) -> None:
    value, beside = ARGUMENTS[argument]
    assert answers(tokenizer, things, {**beside, argument: value}) != answers(tokenizer, things, beside)


# The fields of recipes: what reaches the functions that do the work, whose own options the commands above show.

FIELDS: dict[str, tuple[Any, str]] = {  # another value, and the stage that it changes
    "name": ("other", "paper"),
    "about": ("Why.", "report"),
    "model": ("{other}", "profile"),
    "model_args": ("dtype=bfloat16", "profile"),
    "engine": ("vllm", "report"),
    "engine_args": ("max_num_seqs=9", "report"),
    "device": ("cpu:0", "profile"),
    "cluster": ("none", "tune"),
    "shape": (
        {"parameters": 1e9, "layers": 6, "hidden_size": 32, "neurons": 48, "vocabulary": 300, "kv_heads": 2, "head_size": 8},
        "paper",
    ),
    "variants": ({"lape": {"specific": "lape"}}, "masks"),
    "profile.samples": (2, "profile"),
    "profile.languages": (["en", "hi", "de"], "profile"),
    "profile.batch_size": (1, "profile"),
    "profile.max_tokens": (9, "profile"),
    "profile.first_token": ("keep", "profile"),
    "profile.halves": (True, "profile"),
    "masks.statistic": ("mean-abs", "masks"),
    "masks.tokens": ("last", "masks"),
    "masks.threshold": (0.02, "masks"),
    "masks.anchor": ("hi", "masks"),
    "masks.bridge": ("3-4", "masks"),
    "masks.exclude_last": (1, "masks"),
    "masks.specific": ("lape", "masks"),
    "masks.beta": (0.7, "masks"),
    "masks.gamma": (0.7, "masks"),
    "tune.alphas": ([1.0], "tune"),
    "tune.method_alphas": ({"diffmean": [0.3]}, "tune"),
    "tune.betas": ([0.2, 0.6], "tune"),
    "tune.gammas": ([0.1], "tune"),
    "tune.objective": ("loglikelihood", "tune"),
    "tune.limit": (2, "tune"),
    "tune.num_fewshot": (1, "tune"),
    "tune.apply_chat_template": (True, "tune"),
    "tune.batch_size": (1, "tune"),
    "tune.shared": (True, "tune"),
    "tune.guard": (True, "tune"),
    "tune.seed": (1, "tune"),
    "evaluate.batch_size": (2, "evaluate"),
    "evaluate.num_fewshot": (1, "evaluate"),
    "evaluate.apply_chat_template": (True, "evaluate"),
    "evaluate.runs": ({"hf": {}, "clas": {"alpha": 2, "beta": 0.1}}, "evaluate"),
    "analyse.geometry_samples": (None, "analyse"),
    "analyse.run": ("strong", "analyse"),
    "analyse.baseline": ("strong", "tables"),
    "parts": ({"two": {"corpus": "mini", "evaluate": ["clas_mini_nli_hi"]}}, "profile"),
    "parts.one.corpus": ("{texts}", "profile"),
    "parts.one.tune": (["clas_mini_nli_de"], "tune"),
    "parts.one.evaluate": (["clas_mini_nli_de"], "evaluate"),
    "parts.one.limit": (3, "evaluate"),
    "parts.one.limits": ({"clas_mini_nli_hi": 1}, "evaluate"),
    "parts.one.runs": ({"clas": {"alpha": 3}}, "evaluate"),
}


def fields(model: type[BaseModel] = StudyRecipe, before: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        inner = Part if name == "parts" else info.annotation
        if name == "parts":
            yield name
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from fields(inner, f"{before}{'parts.one' if name == 'parts' else name}.")
        else:
            yield f"{before}{name}"


def test_every_field_of_a_recipe_has_a_case() -> None:
    assert set(FIELDS) == set(fields())


def study_recipe(things: dict[str, str], changes: dict[str, Any]) -> dict[str, Any]:
    runs = {"hf": {}, "clas": {"alpha": 1}, "strong": {"alpha": 3}}
    part = {"corpus": "mini", "tune": ["clas_mini_nli_hi"], "evaluate": ["clas_mini_nli_hi"], "limit": 2}
    recipe: dict[str, Any] = {
        "name": "r", "model": things["model"], "device": "cpu", "parts": {"one": part},
        "profile": {"samples": 1, "languages": ["en", "hi"], "max_tokens": 10, "halves": False},
        "masks": {"bridge": "2-4", "threshold": 0.005}, "tune": {},
        "evaluate": {"runs": runs}, "analyse": {"geometry_samples": 2},
    }  # fmt: skip
    for field_name, value in changes.items():
        *path, last = field_name.split(".")
        step = recipe
        for name in path:
            step = step.setdefault(name, {})
        step[last] = things[value[1:-1]] if isinstance(value, str) and value.startswith("{") else value
    return recipe


def reached(stage: str, changes: dict[str, Any], things: dict[str, str], place: Path) -> Any:
    """What a stage gives to the functions that do its work."""
    if stage == "paper":
        path = written(place, "r.yaml", json.dumps(study_recipe(things, {"tune": {}, **changes})))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(place)
            return _clas("paper", path, "--plan")[1]
    calls: list[Any] = []

    def noted(what: str, answer: Any = None) -> Any:
        def note(*given: Any, **named: Any) -> Any:
            calls.append(
                (what, *(_told(one, place) for one in given), {name: _told(one, place) for name, one in named.items()})
            )
            return answer

        return note

    recipe = StudyRecipe.model_validate(study_recipe(things, changes))
    with pytest.MonkeyPatch.context() as patch, JobProgress(Console(quiet=True)) as progress:
        stages = StudyStages(recipe, place, progress)
        patch.setattr("lm_eval_clas.harness.task_loading._manager", _few_tasks)
        patch.setattr(
            "lm_eval_clas.harness.model_loading.load_model",
            noted("load", type("Loaded", (), {"model": None, "tokenizer": None})),
        )
        patch.setattr("lm_eval_clas.neurons.profiling.profile", noted("profile"))
        patch.setattr("lm_eval_clas.study.evaluation.evaluate_run", noted("evaluate"))
        patch.setattr("lm_eval_clas.geometry.geometry_run.run_geometry", noted("geometry"))
        if stage == "tune":
            tune = noted("tune")
            patch.setattr(
                "lm_eval_clas.tuning.tuning_run.run_tuning", lambda *given, load, **named: (tune(*given, **named), load())
            )
        for folder in (stages.profile_folder(next(iter(recipe.parts))), *map(stages.profile_folder, stages.halves)):
            shutil.copytree(things["profile"], folder)
        for kind in (
            {stages.made_masks("one"), stages.masks_folder("one")} if stage != "masks" and "one" in recipe.parts else ()
        ):
            shutil.copytree(things["rich" if recipe.needs_residual else "masks"], kind)
        for seed, (label, steering) in enumerate(recipe.evaluate.runs.items(), 1) if stage in ("analyse", "tables") else ():
            values = {"clas_mini_nli_hi": draw(seed, 30)["xnli_hi"], "clas_mini_nli_de": draw(seed, 30)["xnli_sw"]}
            steered = _steered(MaskSet.load(stages.masks_folder("one")), ("hi", "de"), steering) if steering else None
            write_run(place / "results" / label, values, steered)
        if stage == "tables":
            return [(name, one.baseline) for name, one in stages.comparisons().items()]
        if stage == "report":
            written(place, "recipe.yaml", recipe.dump())
        one = next(one for one in stages.all() if one.name == stage)
        commands = one.run()
    made = [MaskSet.load(path) for path in sorted((place / "masks").iterdir())] if stage == "masks" else []
    page = (place / "report.html").read_text(encoding="utf-8") if stage == "report" else ""
    told = [command.replace(str(place), "TMP") for command in commands]
    return calls, [(one.hash, one.config.model_dump(exclude={"files"})) for one in made], page, told


@pytest.mark.parametrize("option", [{"beta": 0.1}, {"layers": 2}, {"specific_scope": "own"}, {"method": "random", "seed": 1}])
def test_what_is_analysed_is_steered_like_its_run(
    option: dict[str, Any], things: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    calls = []
    for more in ({}, option):
        runs = {"hf": {}, "clas": {"alpha": 1, **more}, "strong": {"alpha": 3}}
        found = reached("analyse", {"evaluate.runs": runs}, things, tmp_path_factory.mktemp("study"))
        ((*_, named),) = [call for call in found[0] if call[0] == "geometry"]
        calls.append(named)
        assert all(f"--{name.replace('_', '-')} {value}" in found[3][0] for name, value in more.items())
    assert calls[1] == {**calls[0], **{name: str(value) for name, value in option.items()}}


def _told(value: Any, place: Path) -> str:
    if isinstance(value, dict) and all(hasattr(one, "config") for one in value.values()):  # tasks
        return str({name: one.config.num_fewshot for name, one in value.items()})
    if callable(value) or isinstance(value, MaskSet):
        return ""
    return str(value).replace(str(place), "TMP")


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_of_a_recipe_reaches_what_does_the_work(
    name: str, things: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    value, stage = FIELDS[name]
    beside: dict[str, Any] = {"masks.bridge": "auto", "masks.threshold": 0} if name == "masks.exclude_last" else {}
    if name == "tune.method_alphas":
        beside = {"evaluate.runs": {"hf": {}, "clas": {"alpha": 1}, "rival": {"alpha": "tuned", "method": "diffmean"}}}
    before, after = (
        _or_refused(stage, changes, things, tmp_path_factory.mktemp("study")) for changes in (beside, {**beside, name: value})
    )
    if stage in ("profile", "tune", "evaluate", "analyse"):  # commands by hand alone would be a mere record
        assert before[0] != after[0]
        assert before[3] != after[3]
    else:
        assert before != after


def _or_refused(stage: str, changes: dict[str, Any], things: dict[str, str], place: Path) -> Any:
    try:
        return reached(stage, changes, things, place)
    except ClasError as error:
        return str(error)
