"""What each stage of a study runs through the model, counted from what is on file: shared starts, resumed layers, answers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import mean

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.languages.language_names import parse_language
from lm_eval_clas.neurons.bridge import parse_layers
from lm_eval_clas.steering.methods.method_table import METHODS
from lm_eval_clas.study.plan.known_sizes import KnownCorpus, KnownFamily, KnownTask, known_sizes
from lm_eval_clas.study.plan.machines import Span, Workload
from lm_eval_clas.study.recipe import StudyRecipe
from lm_eval_clas.texts.corpora import ParallelInputBuilder

# Where a bridge that the rule chooses begins, as a share of the layers: it is looked for from half depth on.
_BRIDGE_BEGINS = Span(0.5, 0.8)
# A batch takes as many steps as its longest answer, in mean answers.
_LONGEST = Span(1.0, 2.0)
_VLLM_ROWS = 128  # answers that vLLM writes at once, on average


@dataclass
class StageWork:
    """What one stage runs.

    Attributes:
        items: prompts and texts, each as often as it is run.
        plain: all of it with `hf`. With engine vllm, `inside` runs in vLLM and `beside` with `hf`.
        unknown: what could not be counted, and why.
    """

    stage: str
    what: str
    items: int = 0
    plain: Workload = field(default_factory=Workload)
    inside: Workload = field(default_factory=Workload)
    beside: Workload = field(default_factory=Workload)
    unknown: list[str] = field(default_factory=list)
    counted: bool = False

    def add(self, items: int, plain: Workload, inside: Workload | None = None) -> None:
        """More of it, and what it is inside vLLM if it can run there."""
        self.items += items
        self.plain = self.plain.plus(plain)
        if inside is None:
            self.beside = self.beside.plus(plain)
        else:
            self.inside = self.inside.plus(inside)
        self.counted = True


def stage_works(recipe: StudyRecipe, tokenizer: str, layers: int | None) -> list[StageWork]:
    """The work of each stage that runs the model.

    Args:
        tokenizer: by which tokens are counted, as `data/known_sizes.json` calls it.
        layers: of the model; None where that is not known.
    """
    counter = _Counter(recipe, tokenizer, layers)
    works = [counter.profile()]
    if any(part.tune for part in recipe.parts.values()):
        works.append(counter.tune())
    works.append(counter.evaluate())
    if recipe.analyse.geometry_samples is not None:
        works.append(counter.geometry(recipe.analyse.geometry_samples))
    return works


def strengths(recipe: StudyRecipe, method: str) -> int:
    """How many settings of a method are tried, alpha 0 among them."""
    step = recipe.tune_step
    alphas = len({*recipe.alphas_of(method)} - {0.0})
    grid = max(1, len({*step.betas})) * max(1, len({*step.gammas})) if METHODS[method].uses_strengths else 1
    return 1 + alphas * grid


class _Counter:
    def __init__(self, recipe: StudyRecipe, tokenizer: str, layers: int | None) -> None:
        self._recipe = recipe
        self._tokenizer = tokenizer
        self._layers = layers
        self._sizes = known_sizes()

    def profile(self) -> StageWork:
        first = next(iter(self._recipe.parts))
        halves = [f"{first}-first-half", f"{first}-second-half"] if self._recipe.profile.halves else []
        work = StageWork("profile", ", ".join([*self._recipe.parts, *halves]))
        samples = self._recipe.profile.samples
        for name in self._recipe.parts:
            self._texts(work, name, samples)
        if halves:
            self._texts(work, first, samples)  # the two halves together
        for name in self._recipe.parts if self._recipe.needs_residual else ():
            self._texts(work, name, samples)
        if work.counted:
            work.add(0, Workload(loads=1))
        return work

    def geometry(self, samples: int) -> StageWork:
        work = StageWork("analyse", "geometry, with and without steering")
        for name in self._recipe.parts:
            for _ in range(2):
                self._texts(work, name, samples)
        if work.counted:
            work.add(0, Workload(loads=1))
        return work

    def _texts(self, work: StageWork, part: str, samples: int | None) -> None:
        step = self._recipe.profile
        try:
            known = self._corpus(self._recipe.parts[part].corpus)
        except ClasError as error:
            _note(work, f"the texts of part {part}: {str(error).rstrip('.')}")
            return
        count = known.items if samples is None else min(samples, known.items, step.samples or known.items)
        chosen = self._profiled(self._recipe.parts[part].corpus)
        for language, characters in known.characters.items():
            if language not in chosen:
                continue
            each = min(self._tokens(characters, language), step.max_tokens)
            batches = math.ceil(count / step.batch_size)
            work.add(count, Workload(count=_exactly(batches), tokens=_exactly(count * each)))

    def _profiled(self, corpus: str) -> set[str]:
        """The languages of a corpus that masks will have; all that anybody knows of, if it cannot be read."""
        try:
            every = set(self._corpus(corpus).characters)
        except ClasError:
            every = {task.language for family in self._sizes.families.values() for task in family.tasks.values()}
        step = self._recipe.profile
        return every if step.languages is None else every & {parse_language(one) for one in step.languages}

    def _corpus(self, name: str) -> KnownCorpus:
        """What is on file of a corpus, or, of one in a file or folder of the user's, what is in there."""
        if name in self._sizes.corpora:
            return self._sizes.corpora[name]
        texts = ParallelInputBuilder(name, None, None).build()
        return KnownCorpus(
            items=len(texts.ids), characters={language: mean(map(len, lines)) for language, lines in texts.texts.items()}
        )

    def tune(self) -> StageWork:
        recipe, step = self._recipe, self._recipe.tune_step
        tunings = {name: [strengths(recipe, method) for method, _ in recipe.tunings(name)] for name in recipe.parts}
        most = max(tunings.values(), key=sum)
        kinds = "methods and variants" if recipe.variants else "methods"
        work = StageWork("tune", f"{sum(most)} strengths" + (f" of {len(most)} {kinds}" if len(most) > 1 else ""))
        anchor = parse_language(recipe.masks.anchor)
        for name, part in recipe.parts.items():
            each, settings = tunings[name], sum(tunings[name])
            profiled = self._profiled(part.corpus)
            known, unknown = self._sizes.find(part.tune)
            _note_unknown(work, unknown)
            found = [(family, task) for family, _, task in known if task.language in profiled - {anchor}]
            inside = step.objective == "metric" and _generates(found)
            for family, task in found:
                items = min(step.limit or task.items, task.items)
                written = family.generates and step.objective == "metric"
                batch, shots = _number(step.batch_size), step.num_fewshot or 0
                once = self._once(family, task, items, batch, shots, written)
                shares = [self._resumed(tried) for tried in each]
                share = Span(sum(one.low for one in shares), sum(one.high for one in shares))
                resumed = Workload(
                    count=once.count.times(settings),
                    tokens=Span(once.tokens.low * share.low, once.tokens.high * share.high),
                    read=once.read.times(settings),
                    # Strengths are written side by side, up to four times as many rows as a batch has.
                    steps=once.steps.times(settings / min(settings, 4)),
                    written=once.written.times(settings),
                )
                work.add(items * settings, resumed, self._in_vllm(once).times(settings) if inside else None)
            if found:
                work.add(0, Workload(loads=len(each)), Workload(loads=len(each)) if inside else None)
        return work

    def evaluate(self) -> StageWork:
        recipe, step = self._recipe, self._recipe.evaluate
        work = StageWork("evaluate", f"{len(step.runs)} runs")
        for name, part in recipe.parts.items():
            runs = len(recipe.labels(name))
            limited, unknown = self._sizes.find_limited(part.limited())
            _note_unknown(work, unknown)
            found = [(family, task) for family, _, task, _ in limited]
            inside = _generates(found)
            for family, _, task, items in limited:
                once = self._once(family, task, items, _number(step.batch_size), step.num_fewshot or 0, family.generates)
                least, most = self._answered(name, task.language)
                work.add(items * most, once.times(least, most), self._in_vllm(once).times(least, most) if inside else None)
            if found:
                work.add(0, Workload(loads=runs), Workload(loads=runs) if inside else None)
        return work

    def _answered(self, part: str, language: str) -> tuple[int, int]:
        """How often at least, and at most, requests of a language are answered: what no steering reaches once for all runs."""
        recipe = self._recipe
        runs = [recipe.run_of(label, part) for label in recipe.labels(part)]
        if language not in self._profiled(recipe.parts[part].corpus) - {parse_language(recipe.masks.anchor)}:
            return 1, 1
        may_be_kept_at_0 = sum(run.get("alpha") == "tuned" for run in runs) if recipe.tune_step.guard else 0
        unsteered = sum(not run for run in runs)
        steered = len(runs) - unsteered - may_be_kept_at_0
        return steered + bool(unsteered or may_be_kept_at_0), steered + may_be_kept_at_0 + bool(unsteered)

    def _once(self, family: KnownFamily, task: KnownTask, items: int, batch: int, shots: int, written: bool) -> Workload:
        """One unsteered run of a task."""
        prompt = self._tokens(task.prompt, task.language)
        # What examples share is not counted on: they may be drawn anew for each item.
        prompts = items * prompt * (task.run + shots)
        batches = math.ceil(items / batch)
        if written:
            low, high = family.written or (1, 1)
            return Workload(
                count=_exactly(2 * batches),
                tokens=_exactly(prompts),
                read=_exactly(items),
                steps=Span(batches * low * _LONGEST.low, batches * high * _LONGEST.high),
                written=Span(items * low, items * high),
            )
        answer = self._answer_tokens(task)
        # One-token choices are all read at the prompt's last position.
        return Workload(
            count=_exactly(2 * batches),
            tokens=_exactly(prompts + items * task.choices * (answer - 1)),
            read=_exactly(items * (1 + task.choices * (answer - 1))),
        )

    def _answer_tokens(self, task: KnownTask) -> float:
        """Of a tokenizer that cuts finer than the one they were counted with, more."""
        finer = self._sizes.characters_per_token("gemma-3", task.language) / self._sizes.characters_per_token(
            self._tokenizer, task.language
        )
        return max(1.0, task.answer_tokens * finer)

    def _in_vllm(self, once: Workload) -> Workload:
        """The same there: every setting runs whole, and answers are written by the hundred."""
        return Workload(
            count=once.tokens.times(1 / 2048),
            tokens=once.tokens,
            read=once.read,
            steps=once.written.times(1 / _VLLM_ROWS),
            written=once.written,
        )

    def _resumed(self, settings: int) -> Span:
        """Workload through all layers that settings take: the layers below the bridge run once for all."""
        begins = _BRIDGE_BEGINS
        bridge = self._recipe.masks.bridge
        if bridge != "auto" and self._layers is not None:
            begins = _exactly(min(parse_layers(bridge, self._layers)) / self._layers)
        return Span(begins.high + (1 - begins.high) * settings, begins.low + (1 - begins.low) * settings)

    def _tokens(self, characters: float, language: str) -> float:
        return characters / self._sizes.characters_per_token(self._tokenizer, language)


def _generates(found: list[tuple[KnownFamily, KnownTask]]) -> bool:
    """Whether all of a part's tasks write answers: only then it runs inside vLLM."""
    return bool(found) and all(family.generates for family, _ in found)


def _note(work: StageWork, why: str) -> None:
    if why not in work.unknown:
        work.unknown.append(why)


def _note_unknown(work: StageWork, tasks: Iterable[str]) -> None:
    for name in tasks:
        _note(work, f"{name}: its items are not on file")


def _exactly(number: float) -> Span:
    return Span(number, number)


def _number(batch: int | str) -> int:
    return int(batch) if str(batch).isdigit() else 8
