"""Whether two runs answered the same items, without which comparing them says nothing."""

from __future__ import annotations

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.comparing.runs import Run


def require_same_items(run: Run, baseline: Run, task: str, filter_name: str) -> list[str]:
    """Refuses two runs whose items of a task differ.

    With samples on both sides, items are the same if their numbers and the hashes of their contents are; else, as far as
    results files tell: if their count, the task's version, and the harness's hash of items and prompts are. That hash tells
    nothing where prompts are known to differ, as with chat templates.

    Returns:
        What else differs and a reader must know, such as the prompts.

    Raises:
        ClasError: the items differ.
    """
    ours, theirs = run.tasks[task], baseline.tasks[task]
    who = f"'{run.label}' and '{baseline.label}'"
    notes = []
    if ours.version != theirs.version:
        notes.append(f"{who} ran other versions of {_stem(task)} ({ours.version} and {theirs.version}).")
    if ours.samples and theirs.samples:
        one, other = ours.of_filter(filter_name), theirs.of_filter(filter_name)
        same = one.index.intersection(other.index)
        differ = int((one.loc[same, "doc_hash"] != other.loc[same, "doc_hash"]).sum())
        shared = len(same) - differ
        if shared < max(len(one), len(other)):
            raise ClasError(
                f"{who} did not answer the same items of {task} ({len(one)} and {len(other)}, of which {shared} are the same); "
                "run both with one --limit and one version of the task."
            )
        if (one.loc[same, "prompt_hash"] != other.loc[same, "prompt_hash"]).any():
            notes.append(f"{who} had other prompts, so that a gain is also one of the prompt.")
        return notes
    if ours.items is not None and theirs.items is not None and ours.items != theirs.items:
        raise ClasError(
            f"{who} did not answer the same items of {task} ({ours.items} and {theirs.items}); run both with one --limit."
        )
    if ours.version != theirs.version:
        raise ClasError(
            f"{who} ran versions {ours.version} and {theirs.version} of {task}, and no samples show that items are the same; "
            "run both again with --log_samples."
        )
    asked = [name for name in run.prompting if run.prompting[name] != baseline.prompting.get(name)]
    if None not in (ours.shots, theirs.shots) and ours.shots != theirs.shots:
        asked.append("number of examples")
    if asked:  # which is in the hashes too
        known = "their number" if None not in (ours.items, theirs.items) else "the task's name"
        return [
            *notes,
            f"{who} were asked with another {' and another '.join(asked)}, so that a gain is also one of the prompt; without "
            f"samples (--log_samples), only {known} shows that the items are the same.",
        ]
    if ours.digest and theirs.digest and ours.digest != theirs.digest:
        raise ClasError(
            f"{who} had other items or prompts in {task} (their hashes differ), and no samples that tell which; run both again "
            "with --log_samples."
        )
    return notes


def _stem(task: str) -> str:
    """The task without its last word, so that one note serves all languages."""
    return task.rpartition("_")[0] or task
