"""`StudyRecipe`: everything that decides a study, as one YAML file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.escaping import visible
from lm_eval_clas.base.near_names import did_you_mean
from lm_eval_clas.base.plain_numbers import require_batch_size
from lm_eval_clas.decoder.shapes import ModelShape
from lm_eval_clas.disk.checked_files import read_text, user_path
from lm_eval_clas.disk.checked_json import StrictFinite, first_fault
from lm_eval_clas.disk.checked_yaml import parse_yaml
from lm_eval_clas.disk.files import PACKAGE
from lm_eval_clas.masks.strengths import CLAS
from lm_eval_clas.neurons.activity import FirstToken, Statistic, Tokens
from lm_eval_clas.steering.methods.method_table import METHOD_NAMES, METHODS

_LONGEST_NAME = 100  # characters of names of folders, which file systems take with what comes around them
DEMO_MODEL = "demo-model"
_SIGNED = ("signed-mean", "all")  # what means are of that methods add
_OTHERS = ", ".join(name for name in METHODS if name != CLAS)
STAGES = ("profile", "masks", "tune", "evaluate", "analyse", "tables", "report")
FOLDER = PACKAGE / "study" / "recipes"


Options = dict[str, float | int | str]  # of steering, by name, as a run has them


def _batch_size(value: int | str) -> int | str:
    require_batch_size(value, "it")
    return value


BatchSize = Annotated[int | str, AfterValidator(_batch_size)]  # as the harness takes it


class Part(StrictFinite):
    """One data set of a study, with a profile, masks and strengths of its own: all its languages must be in its corpus.

    Attributes:
        corpus: what neurons are measured on, as `clas profile --corpus` takes it.
        tune: tasks or groups of the harness to tune on; none evaluates with whatever alpha the runs say.
        evaluate: tasks or groups to evaluate, on other splits.
        limit: items of each task evaluated; None takes all.
        limits: the same of single names in `evaluate`, where they have another: for tasks that take much longer, for example.
        runs: what runs have different here, by label, such as `{clas: {alpha: -2}}`: for tasks that nothing could be tuned for,
            for example. A run with null is left out here.
    """

    corpus: str
    tune: list[str] = Field(default_factory=list)
    evaluate: list[str] = Field(min_length=1)
    limit: int | None = Field(default=None, ge=1)
    limits: dict[str, Annotated[int, Field(ge=1)]] = Field(default_factory=dict)
    runs: dict[str, Options | None] = Field(default_factory=dict)

    def limited(self) -> list[tuple[int | None, list[str]]]:
        """What is evaluated, by the items of each task."""
        found: dict[int | None, list[str]] = {}
        for name in self.evaluate:
            found.setdefault(self.limits.get(name, self.limit), []).append(name)
        return list(found.items())


class ProfileStep(StrictFinite):
    """How neurons are measured.

    Attributes:
        samples: items of each corpus; None takes all.
        first_token: whether the first position of each text counts: `skip` or `keep`.
        halves: also profiles two halves of the first corpus, for how stable masks can be at all.
    """

    samples: int | None = Field(default=100, ge=1)
    languages: list[str] | None = None
    batch_size: int = Field(default=8, ge=1)
    max_tokens: int = Field(default=2048, ge=1)
    first_token: FirstToken = "skip"
    halves: bool = True


class MasksStep(StrictFinite):
    """How a profile becomes masks: the options of `clas masks`, and the paper's beta and gamma.

    Attributes:
        specific: language-specific neurons by `counts`, or by `lape`.
    """

    statistic: Statistic = "signed-mean"
    tokens: Tokens = "all"
    threshold: float = 0.0
    anchor: str = "en"
    bridge: str = "auto"
    exclude_last: int = Field(default=2, ge=0)
    specific: Literal["counts", "lape"] = "counts"
    beta: float = 0.4
    gamma: float = 0.2


class TuneStep(StrictFinite):
    """How the strength is tuned: the options of `clas tune`.

    Attributes:
        alphas: of CLAS.
        method_alphas: of other methods, by name, where they are not what `clas tune --method` tries by default.
        betas, gammas: those to try with every alpha; none takes those of the masks.
        num_fewshot, apply_chat_template: None is as in `evaluate`.
    """

    alphas: list[float] = [-8, -5, -4, -2, -1, 0, 1, 2, 4]  # noqa: RUF012  (pydantic copies it)
    method_alphas: dict[str, list[float]] = Field(default_factory=dict)
    betas: list[float] = Field(default_factory=list)
    gammas: list[float] = Field(default_factory=list)
    objective: Literal["metric", "loglikelihood"] = "metric"
    limit: int | None = Field(default=200, ge=1)
    num_fewshot: int | None = Field(default=None, ge=0)
    apply_chat_template: bool | None = None
    batch_size: BatchSize = 8
    shared: bool = False
    guard: bool = False
    seed: int = Field(default=0, ge=0)


class EvaluateStep(StrictFinite):
    """What is evaluated on every part.

    Attributes:
        runs: the arguments of `hf-clas` (with `engine: vllm`, those that `vllm-clas` has, too), by the label of the run. A run
            without any is the model as it is. The others get the part's masks, or those of a variant:
            `{alpha: 1, variant: lape}`.
    """

    batch_size: BatchSize = 8
    num_fewshot: int | None = Field(default=None, ge=0)
    apply_chat_template: bool = False
    runs: dict[str, Options] = Field(min_length=1)


class AnalyseStep(StrictFinite):
    """What is asked of the results.

    Attributes:
        geometry_samples: parallel texts for the geometry; None leaves it out.
        run: the label of the run whose gains are explained; the geometry has its strengths.
        baseline: the label of the run that the others are compared with.
    """

    geometry_samples: int | None = Field(default=50, ge=2)
    run: str = "clas"
    baseline: str = "hf"


class StudyRecipe(StrictFinite):
    """A whole study.

    Attributes:
        model: a Hub id, a path, or `demo-model` for the small model of the extra `demo`.
        model_args: more arguments of the harness's `hf`, such as `dtype=bfloat16`.
        engine: `vllm` generates inside vLLM: it tunes by metric and evaluates the parts all of whose tasks generate. Whatever
            else there is (profiles, log-likelihoods, geometry) stays with `hf`, which is faster there.
        engine_args: more arguments of the harness's `vllm`, beside `model_args`.
        variants: other masks of every part, by name: what they have different from `masks`, such as `{specific: lape}`,
            `{anchor: zh}` or `{tokens: last}`. A run with tuned strengths has those that were tuned on its own masks.
        cluster: the field of documents by which items hang together in tests and intervals; None finds it, `none` takes each
            item by itself.
        shape: of the model, for what memory and time to expect; None takes what is on file, or the model's own configuration.
    """

    name: str
    about: str = ""
    model: str
    model_args: str = ""
    engine: Literal["hf", "vllm"] = "hf"
    engine_args: str = ""
    device: str | None = None
    cluster: str | None = None
    shape: ModelShape | None = None
    profile: ProfileStep = Field(default_factory=ProfileStep)
    masks: MasksStep = Field(default_factory=MasksStep)
    variants: dict[str, Options] = Field(default_factory=dict)
    tune: TuneStep = Field(default_factory=TuneStep)
    evaluate: EvaluateStep
    analyse: AnalyseStep = Field(default_factory=AnalyseStep)
    parts: dict[str, Part] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> StudyRecipe:
        _folder_names("part", self.parts)
        _folder_names("run", self.evaluate.runs)
        _folder_names("variant", self.variants)
        for name in self.variants:
            self.masks_step(name)
        for name, part in self.parts.items():
            if other := [one for one in part.limits if one not in part.evaluate]:
                near = did_you_mean(other[0], part.evaluate)
                raise ValueError(f"part '{name}' has a limit for '{other[0]}'{near}, which it does not evaluate")
            if other := [label for label in part.runs if not self.evaluate.runs.get(label)]:
                near = "" if other[0] in self.evaluate.runs else did_you_mean(other[0], self.evaluate.runs)
                raise ValueError(f"part '{name}' has options for '{other[0]}'{near}, which is no run that steers")
            for label in self.labels(name):
                self._require_run(f"run '{label}'" + (f" in part '{name}'" if label in part.runs else ""), label, name)
            if self.analyse.run in self.evaluate.runs and self.analyse.run not in self.labels(name):
                raise ValueError(f"part '{name}' leaves out the run '{self.analyse.run}', which is the one that is analysed")
        if unknown := set(self.tune.method_alphas) - set(METHODS) | {CLAS} & set(self.tune.method_alphas):
            raise ValueError(f"method_alphas names '{min(unknown)}', which is no other method than clas; there are {_OTHERS}")
        for label in (self.analyse.run, self.analyse.baseline):
            if label not in self.evaluate.runs:
                raise ValueError(f"analyse names a run '{label}' that evaluate.runs does not have")
        return self

    def _require_run(self, told: str, label: str, part: str) -> None:
        options = self.run_of(label, part)
        if (variant := options.get("variant")) is not None and variant not in self.variants:
            raise ValueError(f"{told} has a variant '{variant}' that variants does not have")
        if taken := {"pretrained", "masks"} & set(options):
            raise ValueError(f"the study gives {', '.join(sorted(taken))} itself ({told})")
        if (asked := str(options.get("method", CLAS))) not in METHOD_NAMES:
            near = did_you_mean(asked, METHOD_NAMES)
            raise ValueError(f"{told} has a method '{asked}'{near}; there are {', '.join(METHOD_NAMES)}")
        method = METHODS.get(asked)
        if self.engine == "vllm" and method is not None and method.is_map:
            raise ValueError(
                f"{told} has method {method.name}, which adds a linear map of the activation, and with engine vllm "
                "a request has factors and vectors, which no map is; leave the run out, or take engine hf"
            )
        if method is not None and method.measured == "means" and (self.masks.statistic, self.masks.tokens) != _SIGNED:
            raise ValueError(
                f"{told} has method {method.name}, which needs the signed means over all tokens; leave "
                "statistic and tokens out of masks, or the run out"
            )
        if self.engine == "vllm" and "scoring" in options:
            raise ValueError(f"{told} has scoring, which is of hf-clas alone; leave it out with engine vllm, or take engine hf")
        if options.get("alpha") == "tuned" and not self.parts[part].tune:
            raise ValueError(f"run '{label}' has alpha tuned, but part '{part}' has nothing to tune on")

    @property
    def tune_step(self) -> TuneStep:
        """How the strength is tuned: with the prompts of the evaluation, unless the recipe has others."""
        as_evaluated = {"num_fewshot": self.evaluate.num_fewshot, "apply_chat_template": self.evaluate.apply_chat_template}
        own = {name: value for name in as_evaluated if (value := getattr(self.tune, name)) is not None}
        return self.tune.model_copy(update=as_evaluated | own)

    def tunings(self, part: str) -> list[tuple[str, str | None]]:
        """What is tuned for a part: methods, each with the variant of the masks, or None for the part's own.

        CLAS, and whatever else runs with tuned strengths; a control takes another's.
        """
        if not self.parts[part].tune:
            return []
        wanted: set[tuple[str, str | None]] = {(CLAS, None)}
        for label in self.labels(part):
            run = self.run_of(label, part)
            if run.get("alpha") == "tuned" and (method := METHODS.get(str(run.get("method", CLAS)))) is not None:
                variant = run.get("variant")
                wanted |= {(one, variant) for one in (CLAS, method.stands_beside or method.name)}
        return [(name, variant) for variant in (None, *self.variants) for name in METHODS if (name, variant) in wanted]

    def alphas_of(self, method: str) -> list[float]:
        """The strengths that are tried."""
        return self.tune.alphas if method == CLAS else list(self.tune.method_alphas.get(method, METHODS[method].alphas))

    @property
    def needs_residual(self) -> bool:
        """Whether any run acts on what leaves the layers."""
        runs = (self.run_of(label, part) for part in self.parts for label in self.labels(part))
        methods = (METHODS.get(str(run.get("method"))) for run in runs)
        return any(method is not None and method.measured == "residual" for method in methods)

    def labels(self, part: str) -> list[str]:
        """The runs of a part."""
        own = self.parts[part].runs
        return [label for label in self.evaluate.runs if own.get(label, {}) is not None]

    def run_of(self, label: str, part: str) -> dict[str, Any]:
        """The arguments of one of a part's runs, with what the part has different for it."""
        return self.evaluate.runs[label] | (self.parts[part].runs.get(label) or {})

    def masks_step(self, variant: str | None) -> MasksStep:
        """How the masks of a variant are made; of None, the part's own."""
        return self.masks if variant is None else MasksStep.model_validate(self.masks.model_dump() | self.variants[variant])

    @classmethod
    def load(cls, source: str | Path) -> StudyRecipe:
        """Reads a recipe: a YAML file, or the name of one that ships with the package.

        Raises:
            ClasError: there is no such recipe, or something in it is wrong.
        """
        path = user_path(source)
        if not path.is_file() and str(source) in shipped_recipes():
            path = FOLDER / f"{source}.yaml"
        try:
            return cls.model_validate(parse_yaml(read_text(path)))
        except FileNotFoundError as error:
            raise ClasError(
                f"There is no recipe '{source}'{did_you_mean(str(source), shipped_recipes())}; give a YAML file, or one of "
                f"{', '.join(shipped_recipes())}."
            ) from error
        except ValidationError as error:
            raise ClasError(f"The recipe '{source}' is wrong ({first_fault(error, cls)}); see the shipped ones.") from error
        except ValueError as error:
            raise ClasError(f"The recipe '{source}' cannot be read as YAML ({error}); correct it.") from error

    def dump(self) -> str:
        """The recipe as YAML, with every default written out."""
        text: str = yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
        return text


def _folder_names(kind: str, names: Iterable[str]) -> None:
    for name in names:
        if not name or name != Path(name).name or name.startswith(".") or name != visible(name) or len(name) > _LONGEST_NAME:
            raise ValueError(f"the {kind} '{name}' must do as the name of a folder")


def shipped_recipes() -> list[str]:
    """Names of the recipes that ship with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))
