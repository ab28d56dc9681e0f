"""The stages of a study, in order: profile, masks, tune, evaluate, analyse, tables, report. Each calls what does the work."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.version import __version__
from lm_eval_clas.disk.weight_files import weights_hash
from lm_eval_clas.disk.written import delete_ours
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.masks.strengths import CLAS
from lm_eval_clas.neurons.categories import NeuronCategorizer
from lm_eval_clas.neurons.profile_folder import Profile
from lm_eval_clas.neurons.residual_folder import ResidualProfile
from lm_eval_clas.steering.methods.method_table import METHODS, measured_hash
from lm_eval_clas.steering.options import SteeringOptions
from lm_eval_clas.study.identities import masks_identity, run_identity
from lm_eval_clas.study.recipe import STAGES
from lm_eval_clas.study.record import Stage, command, content_hash, given
from lm_eval_clas.study.workplace import Workplace

if TYPE_CHECKING:
    from rich.progress import TaskID


@dataclass
class StudyStages(Workplace):
    """The stages of one recipe in one folder."""

    def all(self) -> list[Stage]:
        """The stages, in order; without `tune`, if the recipe tunes nothing."""
        stages = [
            Stage("profile", self._profile_inputs, self._profile, ["profile"]),
            Stage("masks", self._masks_inputs, self._make_masks, ["masks"]),
            Stage("tune", self._tune_inputs, self._tune, ["tune"]),
            # A new run in the recipe does not lose the others.
            Stage("evaluate", self._evaluate_inputs, self._evaluate, ["results"], keeps=True),
            Stage("analyse", self._analyse_inputs, self._analyse, ["analysis"]),
            Stage("tables", self._tables_inputs, self._tables, ["tables"]),
            Stage("report", self._report_inputs, self._report, ["report.html"]),
        ]
        return [stage for stage in stages if stage.name != "tune" or self.tuned_parts]

    @property
    def _model_identity(self) -> list[str | None]:
        engine = [] if self.recipe.engine == "hf" else [self.recipe.engine, self.recipe.engine_args]
        weights = weights_hash(self.recipe.model, self.recipe.model_args)  # of a local folder alone
        local = [] if weights is None else [weights]
        return [self.recipe.model, self.recipe.model_args, self.recipe.device, __version__, *engine, *local]

    def _all_masks(self) -> Any:
        variants = (None, *self.recipe.variants)
        found = {(p, v): masks_identity(self.masks_folder(p, v)) for p in self.recipe.parts for v in variants}
        return list(found.items()) if all(found.values()) else None

    # profile

    def _profile_inputs(self) -> Any:
        corpora = {name: [part.corpus, content_hash(Path(part.corpus))] for name, part in self.recipe.parts.items()}
        residual = ["residual"] if self.recipe.needs_residual else []
        return [self._model_identity, self.recipe.profile.model_dump(), corpora, *residual]

    def _profile(self) -> list[str]:
        from lm_eval_clas.neurons.profiling import profile, profile_residual

        step, commands = self.recipe.profile, []
        wanted: dict[str, tuple[str, Literal["first", "second"] | None]] = {name: (name, None) for name in self.recipe.parts}
        every: list[tuple[Path, str, Literal["first", "second"] | None, bool]]
        every = [(self.profile_folder(name), *one, False) for name, one in (wanted | self.halves).items()]
        every += [(self.residual_folder(name), *one, True) for name, one in wanted.items() if self.recipe.needs_residual]
        # Before the model is loaded, so that what is wrong with texts is told at once.
        texts_of = {out: self.texts(part, half) for out, part, half, _ in every}
        lm = self.load()
        bars = {
            (out, one): self.progress.add_task(f"profile {out.name} {one}", total=len(texts.ids))
            for out, texts in texts_of.items()
            for one in texts.languages
        }
        for out, part, half, residual in every:
            texts = texts_of[out]

            def report(language: str, done: int, _: int, out: Path = out) -> None:
                self.progress.update(bars[out, language], completed=done)

            options: dict[str, Any] = step.model_dump(include={"batch_size", "max_tokens", "first_token"})
            options["model_args"] = self.recipe.model_args
            measure: Callable[..., Any] = profile_residual if residual else profile
            measure(lm.model, lm.tokenizer, texts, name=self.model_name, out=out, report=report, **options)
            commands.append(
                command(
                    *("clas", "profile", "--model", self.shown_model, "--corpus", self.recipe.parts[part].corpus),
                    *given({"samples": step.samples, "half": half, "languages": ",".join(step.languages or ())}),
                    *given({"model-args": self.recipe.model_args, "device": self.recipe.device}),
                    *("--batch-size", step.batch_size, "--max-tokens", step.max_tokens),
                    *("--first-token", step.first_token, *(("--site", "residual") if residual else ()), "--out", out),
                )
            )
        return commands

    # masks

    def _masks_inputs(self) -> Any:
        profiles = {part: content_hash(self.profile_folder(part)) for part in self.recipe.parts}
        if self.recipe.needs_residual:
            profiles |= {f"{part} residual": content_hash(self.residual_folder(part)) for part in self.recipe.parts}
        steps = [self.recipe.masks.model_dump(), self.recipe.variants]
        return [profiles, steps, __version__] if all(profiles.values()) else None

    def _make_masks(self) -> list[str]:
        return [self._make(part, variant) for part in self.recipe.parts for variant in (None, *self.recipe.variants)]

    def _require_runs(self) -> None:
        """Refuses runs whose method cannot do with the masks that they will have, before hours go into tuning and other runs.

        Raises:
            ClasError: there is one.
        """
        for part in self.recipe.parts:
            masks = {one: MaskSet.load(self.made_masks(part, one)) for one in (None, *self.recipe.variants)}
            for label in self.recipe.labels(part):
                if not (options := self.recipe.run_of(label, part)):
                    continue
                method, layers = str(options.get("method", CLAS)), options.get("layers")
                try:
                    SteeringOptions.parse(masks[options.get("variant")], alpha=0, method=method, layers=layers)
                except ClasError as error:
                    raise ClasError(f"The recipe's run '{label}' cannot be steered in part '{part}': {error}") from error

    def _make(self, part: str, variant: str | None) -> str:
        from lm_eval_clas.masks.lape import with_lape

        step, folder, out = self.recipe.masks_step(variant), self.profile_folder(part), self.made_masks(part, variant)
        profile = Profile.load_finished(folder)
        made = MaskSet.from_profile(
            profile,
            categorizer=NeuronCategorizer(step.statistic, step.tokens, step.threshold),
            anchor=step.anchor,
            bridge=step.bridge,
            exclude_last=step.exclude_last,
            keep_means=True,
        ).with_strengths(step.beta, step.gamma)
        made = with_lape(made, profile) if step.specific == "lape" else made
        residual = self.residual_folder(part) if self.recipe.needs_residual else None
        (made if residual is None else made.with_residual(ResidualProfile.load_finished(residual))).save(out)
        return command(
            *("clas", "masks", folder, "--statistic", step.statistic, "--tokens", step.tokens),
            *("--threshold", step.threshold, "--anchor", step.anchor, "--bridge", step.bridge),
            *("--exclude-last", step.exclude_last, "--specific", step.specific),
            *("--beta", step.beta, "--gamma", step.gamma, "--keep-means"),
            *given({"residual": residual}),
            *("--out", out),
        )

    def require_arguments(self) -> None:
        """Refuses mistyped arguments of runs, which are needed hours later.

        Raises:
            ClasError: there is one.
        """
        from lm_eval_clas.harness.fast_lm import refuse_slips_in_loading
        from lm_eval_clas.harness.hf_clas import CLASLM

        if self.recipe.engine == "vllm":
            return  # its class looks itself, and a run may have arguments of both
        for part in self.recipe.parts:
            for label in self.recipe.labels(part):
                given = {name: value for name, value in self.recipe.run_of(label, part).items() if name != "variant"}
                refuse_slips_in_loading("hf-clas", CLASLM, self.recipe.model, given, f"the recipe's run '{label}'")

    # tune

    def _tune_inputs(self) -> Any:
        masks = {part: masks_identity(self.made_masks(part)) for part in self.tuned_parts}
        tasks = {name: part.tune for name, part in self.recipe.parts.items()}
        # Without the word, a study that was tuned before there was one stands.
        clusters = [self.recipe.cluster] if self.recipe.cluster else []
        step = self.recipe.tune_step.model_dump(exclude={"method_alphas"})
        every = {one for part in self.recipe.parts for one in self.recipe.tunings(part)}
        others = {one: self.recipe.alphas_of(one) for one in METHODS if one != CLAS and one in {method for method, _ in every}}
        methods: list[Any] = [others] if others else []  # likewise
        for part, variant in ((part, variant) for part in self.tuned_parts for variant in self.recipe.variants):  # likewise
            if on := [method for method, own in self.recipe.tunings(part) if own == variant]:
                methods.append([part, variant, on, masks_identity(self.made_masks(part, variant))])
        return [self._model_identity, masks, tasks, step, *clusters, *methods] if all(masks.values()) else None

    def _tune(self) -> list[str]:
        self._require_runs()
        commands, wanted = [], [(part, *one) for part in self.tuned_parts for one in self.recipe.tunings(part)]
        for number, one in enumerate(wanted, start=1):
            self.progress.part(number, len(wanted))
            commands.append(self._tune_part(*one))
        return commands

    def _tune_part(self, part: str, method: str, variant: str | None) -> str:
        from lm_eval_clas.tuning.chosen_engine import engine_in_use
        from lm_eval_clas.tuning.measuring import TuningPlan, grid, tunable
        from lm_eval_clas.tuning.tuning_run import run_tuning

        step, wanted, target = self.recipe.tune_step, self.recipe.parts[part].tune, self.masks_folder(part, variant)
        own, used = method == CLAS, METHODS[method]
        out = target.parent if own else target.parent / "methods" / method
        source = self.made_masks(part, variant) if own else target  # the others' strengths are put beside
        masks = MaskSet.load(source)
        found = self.tasks(wanted, step.num_fewshot)
        names, _ = tunable(found, masks)
        if not names:
            raise ClasError(f"The tasks to tune part '{part}' on are in none of the languages of its masks; choose others.")
        betas, gammas = (step.betas, step.gammas) if used.uses_strengths else ([], [])
        settings = grid(masks, alphas := self.recipe.alphas_of(method), betas, gammas)
        used.require(masks, masks.bridge_layers)
        in_vllm = step.objective == "metric" and self.generates_in_vllm({name: found[name] for name in names})
        measured: dict[str, Any] = {"load": lambda: self.load(fast=True)}
        if in_vllm:
            way = engine_in_use("vllm", self.model, self.engine_args, masks, settings, None, "auto", method)
            measured = {"load": way.load, "sweep_with": way.sweep}
        recipe = TuningPlan(
            model=self.recipe.model,
            model_args=self.engine_args if in_vllm else self.recipe.model_args,
            engine="vllm" if in_vllm else "hf",
            masks=masks.hash,
            tasks=tuple(names),
            settings=settings,
            objective=step.objective,
            limit=step.limit,
            num_fewshot=step.num_fewshot,
            apply_chat_template=bool(step.apply_chat_template),
            method=method,
            measured=measured_hash(masks, method),
        )
        run_tuning(
            recipe,
            {name: found[name] for name in names},
            masks,
            out,
            target,
            **measured,
            progress=self.progress,
            shared=step.shared,
            guard=step.guard,
            seed=step.seed,
            cluster=self.recipe.cluster,
        )
        return command(
            *("clas", "tune", "--model", self.shown_model, "--masks", source),
            *given({"method": None if own else method}),
            *("--tasks", ",".join(wanted), f"--alphas={','.join(f'{alpha:g}' for alpha in alphas)}"),
            *given({"betas": ",".join(f"{one:g}" for one in betas), "gammas": ",".join(f"{one:g}" for one in gammas)}),
            *given({"objective": step.objective, "limit": step.limit, "num-fewshot": step.num_fewshot}),
            *given({"apply-chat-template": step.apply_chat_template, "shared": step.shared, "guard": step.guard}),
            *given({"engine": "vllm" if in_vllm else None, "model-args": recipe.model_args, "cluster": self.recipe.cluster}),
            *given({"device": None if in_vllm else self.recipe.device}),
            *("--batch-size", step.batch_size, "--seed", step.seed, "--out", out),
        )

    # evaluate

    def _evaluate_inputs(self) -> Any:
        masks = [masks_identity(self.masks_folder(part)) for part in self.recipe.parts]
        masks += [masks_identity(self.made_masks(p, v)) for p in self.recipe.parts for v in self.recipe.variants]
        parts = {name: part.model_dump() for name, part in self.recipe.parts.items()}
        return [self._model_identity, masks, parts, self.recipe.evaluate.model_dump()] if all(masks) else None

    def _evaluate(self) -> list[str]:
        step = self.recipe.evaluate
        # What no run steers is answered by the model as it is, and that only once.
        runs = sorted(step.runs, key=lambda label: bool(step.runs[label]))
        self._require_runs()
        limited = {
            name: [(limit, self.tasks(names, step.num_fewshot)) for limit, names in part.limited()]
            for name, part in self.recipe.parts.items()
        }
        tasks = {name: [task for _, found in each for task in found] for name, each in limited.items()}
        parts = {label: [part for part in self.recipe.parts if label in self.recipe.labels(part)] for label in runs}
        _keep_only(
            self.folder / "results", {label: [task for part in of for task in tasks[part]] for label, of in parts.items()}
        )
        bars = {
            (label, part): self.progress.add_task(f"evaluate {label} {part}", total=len(tasks[part]))
            for label, of in parts.items()
            for part in of
        }
        return [line for (label, part), bar in bars.items() for line in self._evaluate_part(label, part, limited[part], bar)]

    def _evaluate_part(self, label: str, part: str, limited: list[tuple[int | None, dict[str, Any]]], bar: TaskID) -> list[str]:
        from lm_eval.utils import simple_parse_args_string

        from lm_eval_clas.harness.fast_lm import default_device
        from lm_eval_clas.study.evaluation import evaluate_run

        step, out = self.recipe.evaluate, self.folder / "results" / label
        run = self.recipe.run_of(label, part)
        options = {name: value for name, value in run.items() if name != "variant"}
        variant = run.get("variant")
        masks = self.masks_folder(part, None if variant is None else str(variant))
        tasks = {name: task for _, found in limited for name, task in found.items()}
        in_vllm = self.generates_in_vllm(tasks)
        arguments = {
            **simple_parse_args_string(self.engine_args if in_vllm else self.recipe.model_args),
            **options,
            **({"masks": str(masks)} if run else {}),
        }
        evaluate_run(
            out,
            {"pretrained": self.model, **({} if in_vllm else {"device": self.recipe.device or default_device()}), **arguments},
            [self._model_identity, options, run_identity(masks, run) if run else None, step.num_fewshot],
            tasks,
            model="vllm-clas" if in_vllm else "hf-clas",
            limits={name: limit for limit, found in limited for name in found},
            batch_size="auto" if in_vllm else step.batch_size,
            apply_chat_template=step.apply_chat_template,
            unsteered=self._unsteered(options),
            report=lambda _: self.progress.advance(bar),
        )
        shown = ",".join(f"{name}={value}" for name, value in {"pretrained": self.shown_model, **arguments}.items())
        return [
            command(
                *("lm_eval", "--model", "vllm-clas" if in_vllm else "hf-clas", "--model_args", shown),
                *("--include_path", "$(clas tasks)"),
                *("--tasks", ",".join(names)),
                *given({"limit": limit, "num_fewshot": step.num_fewshot, "apply_chat_template": step.apply_chat_template}),
                *("--batch_size", "auto" if in_vllm else step.batch_size, "--output_path", out, "--log_samples"),
            )
            for limit, names in self.recipe.parts[part].limited()
        ]

    def _unsteered(self, options: Mapping[str, Any]) -> Path | None:
        """The results of the model as it is, if a run's options are of steering alone, so that both answer alike otherwise."""
        from lm_eval_clas.harness.common.asked_steering import STEERING

        plain = [label for label, one in self.recipe.evaluate.runs.items() if not one]
        return self.folder / "results" / plain[0] if plain and options and not options.keys() - STEERING else None

    # analyse, tables, report

    def _results_inputs(self) -> Any:
        results = content_hash(self.folder / "results")
        return results and [results, list(self.recipe.evaluate.runs), self.recipe.analyse.model_dump(), __version__]

    def _analyse_inputs(self) -> Any:
        profiles = [content_hash(self.profile_folder(name)) for name in (*self.recipe.parts, *self.halves)]
        masks, results = self._all_masks(), self._results_inputs()
        return [results, masks, profiles] if results and masks and all(profiles) else None

    def _analyse(self) -> list[str]:
        from lm_eval_clas.study.analyses import analyse

        return analyse(self)

    def _tables_inputs(self) -> Any:
        results = self._results_inputs()
        return results and [results, "clusters", "every metric", self.recipe.cluster]

    def _tables(self) -> list[str]:
        from lm_eval_clas.comparing.tables import write_tables

        commands, out = [], self.folder / "tables"
        for name, comparison in (found := self.comparisons()).items():
            write_tables(comparison, out, name=name)
            further = None if comparison.metric == found[comparison.family].metric else comparison.metric
            options = {"baseline": comparison.baseline, "tasks": comparison.family, "metric": further}
            options["cluster"] = self.recipe.cluster
            commands.append(command("clas", "table", *self.results, *given(options), "--out", out))
        return commands

    def _report_inputs(self) -> Any:
        shown = {name: content_hash(self.folder / name) for name in ("analysis", "tables", "recipe.yaml")}
        # The report shows when each stage ran, and its commands; its own record is written as it ends.
        shown |= {stage: content_hash(self.folder / "stages" / f"{stage}.json") for stage in STAGES if stage != "report"}
        return shown["tables"] and [shown, self._all_masks(), __version__]

    def _report(self) -> list[str]:
        from lm_eval_clas.study.report.rendering import write_report

        write_report(self.folder, self.folder / "report.html")
        return [command("clas", "report", self.folder)]


def _keep_only(results: Path, tasks: Mapping[str, Collection[str]]) -> None:
    """Deletes results that are no longer in the recipe, whose tasks are given by run: tables must not show them."""
    for run in results.iterdir() if results.is_dir() else ():
        if run.name not in tasks:
            delete_ours(run)
            continue
        for task in run.iterdir() if run.is_dir() else ():
            if task.name not in tasks[run.name]:
                delete_ours(task)
