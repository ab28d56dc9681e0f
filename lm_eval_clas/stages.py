"""The stages of a study, in order: profile, masks, tune, evaluate, analyse, tables, report. Each calls what does the work."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval_clas import __version__
from lm_eval_clas.errors import ClasError
from lm_eval_clas.files import shipped
from lm_eval_clas.masks import MaskSet
from lm_eval_clas.recipe import DEMO_MODEL, StudyRecipe
from lm_eval_clas.study import Stage, content_hash

if TYPE_CHECKING:
    from rich.progress import Progress

    from lm_eval_clas.comparison import Comparison
    from lm_eval_clas.corpora import ParallelTexts

STAGES = ("profile", "masks", "tune", "evaluate", "analyse", "tables", "report")


@dataclass
class Stages:
    """The stages of one recipe in one folder.

    Attributes:
        progress: gets a bar for whatever takes long.
    """

    recipe: StudyRecipe
    folder: Path
    progress: Progress

    def all(self) -> list[Stage]:
        """The stages, in order; without `tune`, if the recipe tunes nothing."""
        stages = [
            Stage("profile", self._profile_inputs, self._profile, ["profile"]),
            Stage("masks", self._masks_inputs, self._make_masks, ["masks"]),
            Stage("tune", self._tune_inputs, self._tune, ["tune"]),
            # Its results know their own inputs, one by one: a new run in the recipe does not lose the others.
            Stage("evaluate", self._evaluate_inputs, self._evaluate, []),
            Stage("analyse", self._analyse_inputs, self._analyse, ["analysis"]),
            Stage("tables", self._tables_inputs, self._tables, ["tables"]),
            Stage("report", self._report_inputs, self._report, ["report.html"]),
        ]
        return [stage for stage in stages if stage.name != "tune" or self.recipe.tune is not None]

    # What they share

    @cached_property
    def model(self) -> str:
        """What transformers loads."""
        if self.recipe.model != DEMO_MODEL:
            return self.recipe.model
        from lm_eval_clas.demo_model import gemma

        return str(gemma())

    @cached_property
    def include_path(self) -> list[str]:
        """Folders of tasks."""
        return [str(shipped("tasks"))]

    def texts(self, corpus: str) -> ParallelTexts:
        """The texts that neurons are measured on."""
        from lm_eval_clas.corpora import ParallelInputBuilder

        step = self.recipe.profile
        return ParallelInputBuilder(corpus, step.languages, step.samples).build()

    def tasks(self, names: Sequence[str]) -> dict[str, Any]:
        """The harness's single tasks by name."""
        from lm_eval_clas.tuning import load_tasks

        return load_tasks(names, self.include_path)

    @property
    def masks_folder(self) -> Path:
        """The masks that runs use: with tuned strengths, where there are any."""
        return self.folder / ("tune/masks" if self.recipe.tune else "masks")

    def _load(self, fast: bool = False) -> Any:
        from lm_eval_clas.loading import load_model

        batch = f"batch_size={self.recipe.tune.batch_size}" if fast and self.recipe.tune else ""
        return load_model(self.model, ",".join(filter(None, [batch, self.recipe.model_args])), self.recipe.device, fast)

    def _masks_identity(self, folder: Path) -> Any:
        try:
            masks = MaskSet.load(folder)
        except ClasError:
            return None
        tuned = {family: {one: t.chosen.model_dump() for one, t in by.items()} for family, by in masks.config.tuned.items()}
        return [masks.hash, masks.config.beta, masks.config.gamma, tuned]

    @property
    def _model_identity(self) -> list[str | None]:
        return [self.recipe.model, self.recipe.model_args, self.recipe.device, __version__]

    def profile_folder(self, corpus: str) -> Path:
        """Where the profile of a corpus is."""
        return self.folder / "profile" / Path(corpus).stem

    # profile

    def _profile_inputs(self) -> Any:
        corpora = [one if not Path(one).exists() else content_hash(Path(one)) for one in self.recipe.profile.corpora]
        return [self._model_identity, self.recipe.profile.model_dump(), corpora]

    def _profile(self) -> list[str]:
        from lm_eval_clas.profiling import profile

        step, commands = self.recipe.profile, []
        lm = self._load()
        for corpus in step.corpora:
            texts = self.texts(corpus)
            bars = {one: self.progress.add_task(f"{corpus} {one}", total=len(texts.ids)) for one in texts.languages}

            def report(language: str, done: int, _: int, bars: dict[str, Any] = bars) -> None:
                self.progress.update(bars[language], completed=done)

            out = self.profile_folder(corpus)
            name = "gemma-3-270m" if self.recipe.model == DEMO_MODEL else None
            options: dict[str, Any] = {"batch_size": step.batch_size, "max_tokens": step.max_tokens}
            profile(lm.model, lm.tokenizer, texts, name=name, out=out, report=report, **options)
            commands.append(
                _command(
                    *("clas", "profile", "--model", self._shown_model, "--corpus", corpus),
                    *(("--samples", step.samples) if step.samples else ()),
                    *(("--languages", ",".join(step.languages)) if step.languages else ()),
                    *(("--model-args", self.recipe.model_args) if self.recipe.model_args else ()),
                    *("--batch-size", step.batch_size, "--max-tokens", step.max_tokens, "--out", out),
                )
            )
            for bar in bars.values():
                self.progress.remove_task(bar)
        return commands

    @property
    def _shown_model(self) -> str:
        return "$(clas demo-model)" if self.recipe.model == DEMO_MODEL else self.recipe.model

    # masks

    def _masks_inputs(self) -> Any:
        profile = content_hash(self.profile_folder(self.recipe.profile.corpora[0]))
        return profile and [profile, self.recipe.masks.model_dump(), __version__]

    def _make_masks(self) -> list[str]:
        from lm_eval_clas.categories import NeuronCategorizer
        from lm_eval_clas.profiles import Profile

        step, folder = self.recipe.masks, self.profile_folder(self.recipe.profile.corpora[0])
        made = MaskSet.from_profile(
            Profile.load(folder),
            categorizer=NeuronCategorizer(step.statistic, step.tokens, step.threshold),
            anchor=step.anchor,
            bridge=step.bridge,
            exclude_last=step.exclude_last,
            keep_means=True,
        )
        made.with_strengths(step.beta, step.gamma).save(self.folder / "masks")
        return [
            _command(
                *("clas", "masks", folder, "--statistic", step.statistic, "--tokens", step.tokens),
                *("--threshold", step.threshold, "--anchor", step.anchor, "--bridge", step.bridge),
                *("--exclude-last", step.exclude_last, "--beta", step.beta, "--gamma", step.gamma),
                *("--keep-means", "--out", self.folder / "masks"),
            )
        ]

    # tune

    def _tune_inputs(self) -> Any:
        masks = self._masks_identity(self.folder / "masks")
        return masks and self.recipe.tune and [self._model_identity, masks, self.recipe.tune.model_dump()]

    def _tune(self) -> list[str]:
        from lm_eval_clas.tuning import Recipe, grid, tunable
        from lm_eval_clas.tuning_run import run_tuning

        step = self.recipe.tune
        assert step is not None
        masks = MaskSet.load(self.folder / "masks")
        found = self.tasks(step.tasks)
        names, _ = tunable(found, masks)
        if not names:
            raise ClasError("The recipe's tune.tasks have nothing to tune in the languages of the masks; choose others.")
        recipe = Recipe(
            model=self.recipe.model,
            model_args=self.recipe.model_args,
            masks=masks.hash,
            tasks=tuple(names),
            settings=grid(masks, step.alphas),
            objective=step.objective,
            limit=step.limit,
        )
        before = set(self.progress.task_ids)
        run_tuning(
            recipe,
            {name: found[name] for name in names},
            masks,
            self.folder / "tune",
            self.folder / "tune" / "masks",
            load=lambda: self._load(fast=True),
            progress=self.progress,
            shared=step.shared,
            guard=step.guard,
            seed=step.seed,
        )
        for bar in set(self.progress.task_ids) - before:
            self.progress.remove_task(bar)
        return [
            _command(
                *(
                    "clas",
                    "tune",
                    "--model",
                    self._shown_model,
                    "--masks",
                    self.folder / "masks",
                    "--tasks",
                    ",".join(step.tasks),
                ),
                f"--alphas={','.join(f'{alpha:g}' for alpha in step.alphas)}",
                *("--objective", step.objective, *(("--limit", step.limit) if step.limit else ())),
                *(("--model-args", self.recipe.model_args) if self.recipe.model_args else ()),
                *(["--shared"] if step.shared else []),
                *(["--guard"] if step.guard else []),
                *("--batch-size", step.batch_size, "--seed", step.seed, "--out", self.folder / "tune"),
            )
        ]

    # evaluate

    def _evaluate_inputs(self) -> Any:
        masks = self._masks_identity(self.masks_folder)
        return masks and [self._model_identity, masks, self.recipe.evaluate.model_dump()]

    def _evaluate(self) -> list[str]:
        from lm_eval.utils import simple_parse_args_string

        from lm_eval_clas.evaluating import evaluate_run
        from lm_eval_clas.fast import default_device

        step, commands = self.recipe.evaluate, []
        tasks = {task: step.limit_of(entry) for entry in step.tasks for task in self.tasks([entry])}
        results = self.folder / "results"
        _keep_only(results, list(step.runs), list(tasks))
        for label, options in step.runs.items():
            own = {**options, "masks": str(self.masks_folder)} if options else {}
            model_args = {"pretrained": self.model, **simple_parse_args_string(self.recipe.model_args), **own}
            settings: dict[str, Any] = step.model_dump(include={"batch_size", "num_fewshot", "apply_chat_template"})
            bar = self.progress.add_task(label, total=len(tasks))

            def report(_: str, __: bool, bar: Any = bar) -> None:
                self.progress.advance(bar)

            evaluate_run(
                results / label,
                {"device": self.recipe.device or default_device(), **model_args},
                [self._model_identity, options, self._masks_identity(self.masks_folder) if options else None],
                tasks,
                include_path=self.include_path,
                options=settings,
                report=report,
            )
            self.progress.remove_task(bar)
            given = {**model_args, "pretrained": self._shown_model}
            commands += [self._evaluate_command(entry, given, results / label) for entry in step.tasks]
        return commands

    def _evaluate_command(self, entry: str, model_args: dict[str, Any], out: Path) -> str:
        step = self.recipe.evaluate
        limit = step.limit_of(entry)
        return _command(
            *(
                "lm_eval",
                "--model",
                "hf-clas",
                "--model_args",
                ",".join(f"{name}={value}" for name, value in model_args.items()),
            ),
            *("--include_path", "$(clas tasks)", "--tasks", entry, *(("--limit", limit) if limit else ())),
            *(("--num_fewshot", step.num_fewshot) if step.num_fewshot is not None else ()),
            *(("--apply_chat_template",) if step.apply_chat_template else ()),
            *("--batch_size", step.batch_size, "--output_path", out, "--log_samples"),
        )

    # analyse, tables, report

    def _comparisons(self) -> list[Comparison]:
        from lm_eval_clas.comparing import compare, families
        from lm_eval_clas.results import read_runs

        runs = read_runs([f"{label}={self.folder / 'results' / label}" for label in self.recipe.evaluate.runs])
        return [compare(runs, family, baseline=self.recipe.analyse.baseline) for family in families(runs)]

    def _analyse_inputs(self) -> Any:
        results = content_hash(self.folder / "results")
        profiles = [content_hash(self.profile_folder(corpus)) for corpus in self.recipe.profile.corpora]
        return results and [results, profiles, self._masks_identity(self.masks_folder), self.recipe.analyse.model_dump()]

    def _analyse(self) -> list[str]:
        from lm_eval_clas.analysing import analyse

        return analyse(self)

    def _tables_inputs(self) -> Any:
        results = content_hash(self.folder / "results")
        return results and [results, list(self.recipe.evaluate.runs), self.recipe.analyse.baseline, __version__]

    def _tables(self) -> list[str]:
        from lm_eval_clas.tables import write_tables

        for comparison in self._comparisons():
            write_tables(comparison, self.folder / "tables")
        runs = [f"{label}={self.folder / 'results' / label}" for label in self.recipe.evaluate.runs]
        return [_command("clas", "table", *runs, "--baseline", self.recipe.analyse.baseline, "--out", self.folder / "tables")]

    def _report_inputs(self) -> Any:
        shown = {name: content_hash(self.folder / name) for name in ("analysis", "tables")}
        return shown["tables"] and [shown, self._masks_identity(self.masks_folder), __version__]

    def _report(self) -> list[str]:
        from lm_eval_clas.report import write_report

        write_report(self.folder, self.folder / "report.html")
        return [_command("clas", "report", self.folder)]


def _keep_only(results: Path, labels: Sequence[str], tasks: Sequence[str]) -> None:
    """Deletes results of runs and tasks that are no longer in the recipe: tables must not show them."""
    for run in results.iterdir() if results.is_dir() else ():
        if run.name not in labels:
            shutil.rmtree(run)
            continue
        for task in run.iterdir():
            if task.name not in tasks:
                shutil.rmtree(task)


def _command(*words: object) -> str:
    """A command line to copy; what the shell must substitute stays bare."""
    return " ".join(str(word) if "$(" in str(word) else shlex.quote(str(word)) for word in words)
