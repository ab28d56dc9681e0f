"""Masks on the Hub: pushed to and loaded from a stand-in by the real client, in processes of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from hub_stand_in import TOKEN, Hub, running_hub
from huggingface_hub import ModelCard

from lm_eval_clas import ClasError, MaskSet
from lm_eval_clas.cards import masks_card
from lm_eval_clas.hub import HubOrigin, hub_id
from lm_eval_clas.mask_config import CorpusSource
from lm_eval_clas.model import CLASLM
from lm_eval_clas.pushing import write_folder

ROOT = Path(__file__).resolve().parents[1]
CLAS = "from lm_eval_clas.cli import main; main()"

Process = Callable[..., "CompletedProcess[str]"]


@pytest.fixture(scope="module")
def hub() -> Iterator[Hub]:
    with running_hub() as running:
        yield running


@pytest.fixture(scope="module")
def process(hub: Hub, tmp_path_factory: pytest.TempPathFactory) -> Process:
    """Runs Python with this Hub, logged in and with a cache of its own; the client reads all of that when it is imported."""
    home = tmp_path_factory.mktemp("hf-home")

    def run(code: str, *arguments: object, **environment: str) -> CompletedProcess[str]:
        settings = {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(home), "HF_TOKEN": TOKEN, "HF_HUB_OFFLINE": "0"}
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        return subprocess.run(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **settings, **environment},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def pushed(hub: Hub, process: Process, masks: MaskSet, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The commit of the small Llama's masks in someone/masks, which has a later commit on main, of the Gemma masks."""
    folder = masks.save(tmp_path_factory.mktemp("pushed") / "masks")
    done = process(CLAS, "push", folder, "someone/masks")
    assert done.returncode == 0, done.stderr
    commit = hub.repositories["someone/masks"].branches["main"]
    assert f"masks=someone/masks@{commit}" in done.stdout
    assert process(CLAS, "push", "gemma-3-270m", "someone/masks").returncode == 0
    return commit


def inspected(done: CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return str(json.loads(done.stdout)["hash"])


def test_what_is_pushed_is_what_is_loaded(hub: Hub, process: Process, pushed: str, masks: MaskSet) -> None:
    files = hub.repositories["someone/masks"].commits[pushed]
    assert set(files) == {".gitattributes", "README.md", "categories.png", "clas_config.json", "masks.safetensors"}
    assert len(hub.repositories["someone/masks"].commits) == 3  # the Hub's own, and one for each push
    assert inspected(process(CLAS, "inspect", f"someone/masks@{pushed}", "--json")) == masks.hash
    assert inspected(process(CLAS, "inspect", "someone/masks", "--json")) == "de160fba7f6eecf4"


def test_the_cache_serves_offline_and_when_the_hub_is_gone(hub: Hub, process: Process, pushed: str, masks: MaskSet) -> None:
    for name in ("someone/masks", f"someone/masks@{pushed}"):
        assert process(CLAS, "inspect", name, "--json").returncode == 0
    before = len(hub.requests)
    for without in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        assert inspected(process(CLAS, "inspect", "someone/masks", "--json", **without)) == "de160fba7f6eecf4"
        assert inspected(process(CLAS, "inspect", f"someone/masks@{pushed}", "--json", **without)) == masks.hash
    other = process(CLAS, "inspect", "someone/other", HF_HUB_OFFLINE="1")
    assert other.returncode == 2
    assert "its cache does not hold them" in other.stderr
    assert len(hub.requests) == before


def test_the_results_file_names_the_commit(process: Process, pushed: str, checkpoint: Path, masks: MaskSet) -> None:
    code = """
import json, sys
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
from lm_eval_clas.files import shipped
results = simple_evaluate(
    model="hf-clas", model_args=f"pretrained={sys.argv[1]},masks={sys.argv[2]},alpha=2", tasks=["clas_mini_qa_hi"],
    limit=1, bootstrap_iters=0, device="cpu", task_manager=TaskManager(include_path=str(shipped("tasks"))),
)
print(json.dumps(results["config"]["clas"]))
"""
    done = process(code, checkpoint, f"someone/masks@{pushed}")
    assert done.returncode == 0, done.stderr
    info = json.loads(done.stdout.splitlines()[-1])
    assert (info["masks_repository"], info["masks_revision"], info["masks_hash"]) == ("someone/masks", pushed, masks.hash)


def test_branches_and_private_repositories(hub: Hub, process: Process, masks: MaskSet, tmp_path: Path) -> None:
    folder = masks.save(tmp_path / "masks")
    done = process(CLAS, "push", folder, "someone/hidden", "--private", "--revision", "v1", "--message", "First")
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["someone/hidden"]
    assert repository.private
    assert set(repository.commits[repository.branches["main"]]) == {".gitattributes"}
    assert inspected(process(CLAS, "inspect", "someone/hidden@v1", "--json")) == masks.hash
    for name, environment, message in [
        ("someone/hidden@v2", {}, "has no revision 'v2'"),
        ("someone/none", {}, "the Hub has no such repository"),
        ("someone/hidden@main", {}, "is not a mask folder"),
    ]:
        done = process(CLAS, "inspect", name, **environment)
        assert done.returncode == 2, done.stdout
        assert message in " ".join(done.stderr.split())
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("repository", "environment", "message"),
    [
        ("someone/masks", {"HF_TOKEN": "hf_wrong"}, "run 'hf auth login'"),
        ("someone/masks", {"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ("someone/masks", {"HF_ENDPOINT": "http://127.0.0.1:9"}, "the Hub cannot be reached"),
        ("someone/masks@v1", {}, "a branch with --revision"),
        ("masks", {}, "give it as user/name"),
        ("someone/ma--sks", {}, "no name that the Hub allows"),
    ],
)
def test_a_push_that_cannot_be_is_one_sentence(
    process: Process, repository: str, environment: dict[str, str], message: str
) -> None:
    done = process(CLAS, "push", "gemma-3-270m", repository, **environment)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


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
    for name, licence, words in [
        ("xnli", "cc-by-nc-4.0", "CC BY-NC 4.0"),
        ("mini, first half", "apache-2.0", "first half, are under Apache-2.0"),
        ("mine", None, "whoever pushed it knows their licence"),
    ]:
        other = CorpusSource(**{**corpus.model_dump(), "name": name})
        card = ModelCard(masks_card(MaskSet(masks.config.model_copy(update={"corpus": other}), masks.active), "user/name"))
        assert card.data.license == licence
        assert words in card.text


def test_where_masks_came_from_is_no_other_steering(masks: MaskSet, checkpoint: Path) -> None:
    """A --use_cache database serves the same masks from another place."""
    from dataclasses import replace

    from lm_eval.api.model import CachingLM

    fetched = replace(masks, origin=HubOrigin("someone/masks", "0" * 40))
    database = str(checkpoint.parent / "cache.db")
    for one in (masks, fetched):
        CachingLM(CLASLM(str(checkpoint), masks=one, alpha=1, device="cpu"), database)
    with pytest.raises(ClasError, match="another steering"):
        CachingLM(CLASLM(str(checkpoint), masks=fetched, alpha=2, device="cpu"), database)
