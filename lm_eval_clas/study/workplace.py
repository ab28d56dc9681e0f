"""`Workplace`: one recipe in one folder: where everything is, and how model, texts, tasks and runs are loaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lm_eval_clas.disk.files import shipped
from lm_eval_clas.neurons.categories import NeuronCategorizer
from lm_eval_clas.study.recipe import DEMO_MODEL, StudyRecipe

if TYPE_CHECKING:
    from lm_eval_clas.base.job_progress import JobProgress
    from lm_eval_clas.comparing.rows import Comparison
    from lm_eval_clas.comparing.runs import Run
    from lm_eval_clas.texts.corpora import ParallelTexts


@dataclass
class Workplace:
    """One recipe in one folder.

    Attributes:
        progress: gets a bar for whatever takes long.
    """

    recipe: StudyRecipe
    folder: Path
    progress: JobProgress

    @cached_property
    def model(self) -> str:
        """What transformers loads."""
        if self.recipe.model != DEMO_MODEL:
            return self.recipe.model
        from lm_eval_clas.demo.demo_model import gemma

        return str(gemma())

    def texts(self, part: str, half: Literal["first", "second"] | None = None) -> ParallelTexts:
        """The texts that neurons are measured on, or every other one of them."""
        from lm_eval_clas.texts.corpora import ParallelInputBuilder

        step = self.recipe.profile
        return ParallelInputBuilder(self.recipe.parts[part].corpus, step.languages, step.samples, half=half).build()

    def tasks(self, names: Sequence[str], num_fewshot: int | None = None) -> dict[str, Any]:
        """The harness's single tasks by name."""
        from lm_eval_clas.harness.task_loading import load_tasks

        return load_tasks(names, [str(shipped("tasks"))], num_fewshot)

    def generates_in_vllm(self, tasks: Mapping[str, Any]) -> bool:
        """Whether tasks run inside vLLM: the recipe says so, and all of them generate."""
        return self.recipe.engine == "vllm" and all(task.OUTPUT_TYPE == "generate_until" for task in tasks.values())

    @property
    def engine_args(self) -> str:
        """The arguments of the harness's `vllm`."""
        return ",".join(filter(None, (self.recipe.model_args, self.recipe.engine_args)))

    def profile_folder(self, part: str) -> Path:
        """Where a profile is."""
        return self.folder / "profile" / part

    def residual_folder(self, part: str) -> Path:
        """Where a profile of what leaves the layers is, of the same texts."""
        return self.folder / "profile" / f"{part}-residual"

    def made_masks(self, part: str, variant: str | None = None) -> Path:
        """The masks as they were made, without strengths."""
        return self.folder / "masks" / (f"{part}-{variant}" if variant else part)

    def masks_folder(self, part: str, variant: str | None = None) -> Path:
        """The masks that runs use: with tuned strengths, where there are any."""
        if all(variant != one for _, one in self.recipe.tunings(part)):
            return self.made_masks(part, variant)
        return self.tuning_folder(part, variant) / "masks"

    def tuning_folder(self, part: str, variant: str | None = None) -> Path:
        """Where CLAS is tuned on masks; other methods are below."""
        own = self.folder / "tune" / part
        return own if variant is None else own / "variants" / variant

    @cached_property
    def halves(self) -> dict[str, tuple[str, Literal["first", "second"]]]:
        """Profiles of halves of the first part's corpus, by the name of their folder."""
        if not self.recipe.profile.halves:
            return {}
        first = next(iter(self.recipe.parts))
        return {f"{first}-first-half": (first, "first"), f"{first}-second-half": (first, "second")}

    @property
    def shown_model(self) -> str:
        """What a command line calls the model."""
        return "$(clas demo-model)" if self.recipe.model == DEMO_MODEL else self.recipe.model

    @property
    def model_name(self) -> str | None:
        """What profiles and pictures call the model; None for what it is loaded by."""
        return "gemma-3-270m" if self.recipe.model == DEMO_MODEL else None

    def load(self, fast: bool = False) -> Any:
        """The model as the harness loads it."""
        from lm_eval_clas.harness.model_loading import load_model

        batch = f"batch_size={self.recipe.tune.batch_size}" if fast else ""
        return load_model(self.model, ",".join(filter(None, [batch, self.recipe.model_args])), self.recipe.device, fast)

    @property
    def tuned_parts(self) -> list[str]:
        return [name for name, part in self.recipe.parts.items() if part.tune]

    @property
    def categorizer(self) -> NeuronCategorizer:
        """When a neuron counts as active."""
        step = self.recipe.masks
        return NeuronCategorizer(step.statistic, step.tokens, step.threshold)

    def comparisons(self) -> dict[str, Comparison]:
        """The runs side by side, by the name of their table.

        `FAMILY` for each family of tasks, `FAMILY-METRIC` for what else tasks of ours score, and each of these again
        against every control: `FAMILY-against-LABEL`, `FAMILY-METRIC-against-LABEL`.
        """
        from lm_eval_clas.comparing.compare_runs import compare, further_metrics
        from lm_eval_clas.comparing.task_families import families

        runs, baseline, cluster = self.evaluated(), self.recipe.analyse.baseline, self.recipe.cluster
        found: dict[str, Comparison] = {}
        for family in families(runs):
            for metric in (None, *further_metrics(runs, family)):
                name = family if metric is None else f"{family}-{metric}"
                found[name] = compare(runs, family, metric, baseline, cluster=cluster)
                for row in found[name].rows:
                    if row.kind == "control":
                        found[f"{name}-against-{row.label}"] = compare(runs, family, metric, row.label, cluster=cluster)
        return found

    def evaluated(self) -> list[Run]:
        """The runs of the recipe, as the harness left them."""
        from lm_eval_clas.comparing.results_files import read_runs

        return read_runs(self.results)

    @property
    def results(self) -> list[str]:
        somewhere = {label for part in self.recipe.parts for label in self.recipe.labels(part)}
        return [f"{label}={self.folder / 'results' / label}" for label in self.recipe.evaluate.runs if label in somewhere]
