"""Masks on the Hub: pushed to and loaded from a stand-in by the real client, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from hub_stand_in import TOKEN, Hub, Repository, running_hub
from huggingface_hub import ModelCard

from lm_eval_clas import MaskSet, ParallelInputBuilder
from lm_eval_clas.export.cards import masks_card
from lm_eval_clas.export.pushing import write_folder
from lm_eval_clas.harness.hf_clas import CLASLM
from lm_eval_clas.masks.hub import HubOrigin, hub_id
from lm_eval_clas.masks.mask_config import CorpusSource

ROOT = Path(__file__).resolve().parents[2]
# Runs lists of commands, a list a line, in order: `clas` with its arguments, or an evaluation whose `config.clas` it tells.
PROGRAM = """
import contextlib, io, json, sys
from lm_eval_clas.commands.cli import main

def evaluate(model_args):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager
    from lm_eval_clas.disk.files import shipped
    manager = TaskManager(include_path=str(shipped("tasks")), include_defaults=False)
    results = simple_evaluate(model="hf-clas", model_args=model_args, tasks=["clas_mini_qa_hi"], limit=1, bootstrap_iters=0,
                              device="cpu", task_manager=manager)
    return json.dumps(results["config"]["clas"])

for line in sys.stdin:
    done = []
    for command in json.loads(line):
        out, err, code = io.StringIO(), io.StringIO(), 0
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            sys.argv = ["clas", *command]
            try:
                text = evaluate(command[1]) if command[0] == "evaluate" else main()
            except SystemExit as end:
                code = end.code or 0
        done.append([code, text if command[0] == "evaluate" else out.getvalue(), " ".join(err.getvalue().split())])
    print(json.dumps(done), flush=True)
"""
Answer = tuple[int, str, str]  # exit code, standard output, standard error
Commands = Callable[..., list[Answer]]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture(scope="module")
def commands(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Runs commands in a process with this Hub, logged in and with a cache of its own.

    The client reads all of that when it is imported, so each environment has its process, and keeps it: imports take seconds.
    """
    home = tmp_path_factory.mktemp("hf-home")
    running: dict[str, subprocess.Popen[str]] = {}

    def process(environment: dict[str, str]) -> subprocess.Popen[str]:
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **settings, **environment},
        )  # fmt: skip

    def run(*several: list[object], **environment: str) -> list[Answer]:
        key = json.dumps(environment)
        if key not in running:
            running[key] = process(environment)
        given, told = running[key].stdin, running[key].stdout
        assert given is not None
        assert told is not None
        given.write(json.dumps([[str(word) for word in one] for one in several]) + "\n")
        given.flush()
        watch = Timer(300, running[key].kill)
        watch.start()
        answer = told.readline()
        watch.cancel()
        assert answer, f"it ended with {running[key].wait()}"
        return [(code, out, err) for code, out, err in json.loads(answer)]

    yield run
    for one in running.values():
        one.kill()
        one.communicate()


@pytest.fixture(scope="module")
def pushed(hub: Hub, commands: Commands, masks: MaskSet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The commit of the small Llama's masks in someone/masks, which has a later commit on main, of the Gemma masks."""
    folder = masks.save(tmp_path_factory.mktemp("pushed") / "masks")
    first, second = commands(["push", folder, "someone/masks"], ["push", "gemma-3-270m", "someone/masks"])
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    (commit,) = [
        name
        for name, files in hub.repositories["someone/masks"].commits.items()
        if f"`{masks.hash}`".encode() in files.get("README.md", b"")
    ]
    assert f"masks=someone/masks@{commit}" in first[1]
    return commit


def hashes(answers: list[Answer]) -> list[str]:
    """What `clas inspect --json` says the masks are."""
    assert [code for code, _, _ in answers] == [0] * len(answers), answers
    return [json.loads(out)["hash"] for _, out, _ in answers]


def test_what_is_pushed_is_loaded_by_name_and_revision_online_and_not(
    hub: Hub, commands: Commands, pushed: str, masks: MaskSet, checkpoint: Path
) -> None:
    repository = hub.repositories["someone/masks"]
    files = repository.commits[pushed]
    assert set(files) == {".gitattributes", "README.md", "categories.png", "clas_config.json", "masks.safetensors"}
    assert len(repository.commits) == 3  # the Hub's own, and one for each push
    inspect = [["inspect", name, "--json"] for name in ("someone/masks", f"someone/masks@{pushed}")]
    *inspected, evaluated = commands(*inspect, ["evaluate", f"pretrained={checkpoint},masks=someone/masks@{pushed},alpha=2"])
    expected = ["de160fba7f6eecf4", masks.hash]
    assert hashes(inspected) == expected
    info = json.loads(evaluated[1])
    assert (info["masks_repository"], info["masks_revision"], info["masks_hash"]) == ("someone/masks", pushed, masks.hash)
    before = len(hub.requests)
    *inspected, other = commands(*inspect, ["inspect", "someone/other"], HF_HUB_OFFLINE="1")
    assert hashes(inspected) == expected
    assert (other[0], "its cache does not hold them" in other[2]) == (2, True)
    assert hashes(commands(*inspect, HF_ENDPOINT="http://127.0.0.1:9")) == expected
    assert len(hub.requests) == before


README = b"---\nlicense: other\ntags:\n- mine  # a remark\n---\n# About\n\nMy own words.\n"


def test_what_somebody_else_wrote_is_not_replaced_unasked(hub: Hub, commands: Commands) -> None:
    theirs = {
        name: {name: README if name == "README.md" else b"something else", "notes.txt": b"kept"}
        for name in ("README.md", "categories.png", "clas_config.json", "masks.safetensors")
    }
    heads, several = {}, []
    for name, files in theirs.items():
        repository = hub.repositories.setdefault(f"someone/over-{name}", Repository(private=False))
        heads[name] = repository.commit("main", files, "theirs")
        push = ["push", "gemma-3-270m", f"someone/over-{name}"]
        several += [push, [*push, "--revision", "new"], [*push, "--replace"], [*push, "--message", "Again"]]
    answers = iter(commands(*several))
    for name, files in theirs.items():
        for code, _, error in (next(answers), next(answers)):  # a new branch would begin with what main holds
            assert code == 2
            assert error == (
                f"Error: {name} in someone/over-{name} is already there and not known to be what this program wrote; "
                "give another place, or --force to replace."
            )
        for code, _, error in (next(answers), next(answers)):  # forced, and then everything is ours
            assert code == 0, error
        repository = hub.repositories[f"someone/over-{name}"]
        assert "new" not in repository.branches
        assert len(repository.commits) == 3
        assert repository.commits[heads[name]] == files
        written = repository.commits[repository.branches["main"]]
        assert written["notes.txt"] == b"kept"
        if name == "README.md":
            text = written[name].decode()
            assert text.count("lm-eval-clas begin") == 1
            assert "\n# About\n\nMy own words.\n\n<!-- lm-eval-clas begin" in text
            assert "license: other\ntags:\n- mine  # a remark\n- clas\n" in text
        else:
            assert written[name] != files[name]


def test_a_persons_part_of_a_card_stays_and_edits_within_ours_are_asked_about(
    hub: Hub, commands: Commands, masks: MaskSet, tmp_path: Path
) -> None:
    folder = masks.save(tmp_path / "masks")
    ((code, _, error),) = commands(["push", "gemma-3-270m", "someone/edited"])
    assert code == 0, error
    repository = hub.repositories["someone/edited"]
    files = repository.commits[repository.branches["main"]]
    text = files["README.md"].decode()
    assert "license: cc-by-sa-4.0" in text
    theirs = text.replace("---\n\n<!--", "pipeline_tag: other\n---\n\nAhead.\n\n<!--") + "\nBehind.\n"
    repository.commit("main", {"README.md": theirs.encode()}, "edited")
    ((code, _, error),) = commands(["push", folder, "someone/edited"])
    assert code == 0, error
    files = repository.commits[repository.branches["main"]]
    again = files["README.md"].decode()
    assert "\n\nAhead.\n\n<!-- lm-eval-clas begin" in again
    assert again.endswith("<!-- lm-eval-clas end -->\n\nBehind.\n")
    assert masks.hash in again
    assert "pipeline_tag: other\n" in again
    assert "license: apache-2.0" in again  # these masks' texts, and no longer the others'
    assert "google/xquad" not in again
    repository.commit("main", {"README.md": again.replace("not changed", "CHANGED").encode()}, "edited within")
    repository.commit("main", {"categories.png": b"mine"}, "a picture")
    refused, forced = commands(["push", folder, "someone/edited"], ["push", folder, "someone/edited", "--force"])
    assert refused[0] == 2
    assert "README.md in someone/edited, categories.png in someone/edited are already there and not known" in refused[2]
    assert forced[0] == 0
    assert repository.commits[repository.branches["main"]] == files


def test_a_card_that_cannot_be_kept_is_not_touched(hub: Hub, commands: Commands) -> None:
    push = ["push", "gemma-3-270m", "someone/broken", "--force"]
    for content, message in [(b"\xff", "no UTF-8 text"), (b"---\na: [\n---\n", "cannot be read as YAML")]:
        repository = hub.repositories.setdefault("someone/broken", Repository(private=False))
        head = repository.commit("main", {"README.md": content}, "broken")
        ((code, _, error),) = commands(push)
        assert (code, repository.branches["main"]) == (2, head)
        assert message in error
        assert "README.md in someone/broken" in error


def test_branches_private_repositories_and_names_that_are_none(
    hub: Hub, commands: Commands, masks: MaskSet, tmp_path: Path
) -> None:
    folder = masks.save(tmp_path / "masks")
    answers = commands(
        ["push", folder, "someone/hidden", "--private", "--revision", "v1", "--message", "First"],
        ["inspect", "someone/hidden@v1", "--json"],
        ["inspect", "someone/hidden@v2"],
        ["inspect", "someone/none"],
        ["inspect", "someone/hidden@main"],
        ["push", folder, "someone/hidden@v1"],
        ["push", folder, "hidden"],
        ["push", folder, "someone/hid--den"],
    )
    assert answers[0][0] == 0, answers[0]
    repository = hub.repositories["someone/hidden"]
    assert repository.private
    assert set(repository.commits[repository.branches["main"]]) == {".gitattributes"}
    assert hashes(answers[1:2]) == [masks.hash]
    told = [
        "has no revision 'v2'",
        "the Hub has no such repository",
        "is not a mask folder",
        "a branch with --revision",
        "give it as user/name",
        "no name that the Hub allows",
    ]
    for (code, _, error), message in zip(answers[2:], told, strict=True):
        assert code == 2
        assert message in error


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"HF_TOKEN": "hf_wrong"}, "run 'hf auth login'"),
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub cannot be reached"),
    ],
)
def test_a_push_that_cannot_be_is_one_sentence(commands: Commands, environment: dict[str, str], message: str) -> None:
    ((code, _, error),) = commands(["push", "gemma-3-270m", "someone/masks"], **environment)
    assert code == 2
    assert message in error


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("user/name", ("user/name", None)),
        ("user/name@v1.0", ("user/name", "v1.0")),
        ("user/name@refs/pr/3", ("user/name", "refs/pr/3")),
        ("user/name@", None),
        ("user@v1/name", None),
        ("a/b/c", None),
        ("/b", None),
        ("./b", None),
        ("~/b", None),
        ("masks/b", None),
    ],
)
def test_names_of_repositories(source: str, expected: Any) -> None:
    assert hub_id(source) == expected


def test_the_card_has_what_a_stranger_needs(masks: MaskSet, tmp_path: Path) -> None:
    shipped = MaskSet.load("gemma-3-270m")
    assert write_folder(shipped, "user/name", tmp_path / "folder") == [
        "README.md",
        "categories.png",
        "clas_config.json",
        "masks.safetensors",
    ]
    assert MaskSet.load(tmp_path / "folder").hash == shipped.hash
    card = ModelCard.load(tmp_path / "folder" / "README.md")
    assert (card.data.license, card.data.datasets, card.data.language) == (
        "cc-by-sa-4.0",
        ["google/xquad"],
        list(shipped.languages),
    )
    for needed in ("masks=user/name", "Hindi (`hi`)", "CC BY-SA 4.0", "categories.png", "| 14 \\* | 4.9 |", shipped.hash):
        assert needed in card.text
    corpus = masks.config.corpus
    half = ParallelInputBuilder("mini", list(corpus.tokens), half="first").build()
    for name, digest, licence, words in [
        ("xnli", corpus.sha256, "cc-by-nc-4.0", "CC BY-NC 4.0"),
        (half.name, half.sha256(), "apache-2.0", "first half, are under Apache-2.0"),
        ("mine/", corpus.sha256, None, "whoever pushed it knows their licence"),
    ]:
        other = CorpusSource(**{**corpus.model_dump(), "name": name, "sha256": digest, "samples": 8})
        card = ModelCard(masks_card(MaskSet(masks.config.model_copy(update={"corpus": other}), masks.active), "user/name"))
        assert card.data.license == licence
        assert words in card.text


def test_where_masks_came_from_is_no_other_steering(masks: MaskSet, checkpoint: Path, tmp_path: Path) -> None:
    """A --use_cache database serves the same masks from another place."""
    from dataclasses import replace

    from lm_eval.api.instance import Instance
    from lm_eval.api.model import CachingLM

    fetched = replace(masks, origin=HubOrigin("someone/masks", "0" * 40))
    asked = [Instance("loglikelihood", {}, ("Tea", " grows"), 0, ("test_hi", 0, 1))]
    found = []
    for one, alpha in ((masks, 1), (fetched, 1), (fetched, 2)):
        lm = CLASLM(str(checkpoint), masks=one, alpha=alpha, device="cpu")
        CachingLM(lm, str(tmp_path / "cache.db")).loglikelihood(asked)
        found.append(lm.steering_info()["languages"]["hi"].get("from_cache", 0))
    assert found == [0, 1, 0]
