"""Putting masks on the Hub: the folder, its card and its picture in one commit, over nothing that somebody else wrote."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.disk.files import sha256, write_bytes
from lm_eval_clas.disk.hash_lines import RECORD
from lm_eval_clas.export.card_blocks import find_block
from lm_eval_clas.export.cards import masks_card
from lm_eval_clas.masks.category_picture import plot_categories
from lm_eval_clas.masks.hub import HubOrigin, hub_id
from lm_eval_clas.masks.mask_config import MASKS_CONFIG_FILE, read_config
from lm_eval_clas.masks.mask_place import CARD, PICTURE
from lm_eval_clas.masks.mask_set import MaskSet


@dataclass(frozen=True)
class Present:
    """What a repository holds under the names that a push writes.

    Attributes:
        commit: the one that was looked at; None where there is no repository yet.
        hashes: the SHA-256 of each file by name.
        card: the text of its card; empty where there is none.
        written: the hashes of those files that this program wrote there, as its card and its configuration tell them.
    """

    commit: str | None = None
    hashes: dict[str, str] = field(default_factory=dict)
    card: str = ""
    written: dict[str, str] = field(default_factory=dict)

    def foreign(self, folder: Path) -> list[str]:
        """The names of files that would be replaced by others of a folder, and that this program did not write."""
        return [
            name
            for name, found in self.hashes.items()
            if (folder / name).is_file() and found not in (self.written.get(name), sha256(folder / name))
        ]


def write_folder(masks: MaskSet, repository: str, folder: Path, before: str = "") -> list[str]:
    """Writes all that goes to the Hub into a folder, and returns the files' names; `before` is the card that is there."""
    masks.save(folder)
    plot_categories(masks, folder / PICTURE)
    files = {PICTURE: sha256(folder / PICTURE)}
    write_bytes(folder / CARD, masks_card(masks, repository, files, before, f"{CARD} in {repository}").encode())
    return sorted(path.name for path in folder.iterdir() if path.name != RECORD)


def push_masks(
    masks: MaskSet,
    repository: str,
    private: bool = False,
    revision: str | None = None,
    message: str | None = None,
    *,
    may_replace: Callable[[Sequence[str]], object],
) -> HubOrigin:
    """Makes the repository where there is none, and commits the masks to it.

    It is one commit, so that no revision of the repository has masks and configuration of different folders. Of a card that is
    there, everything is kept but the part that this program wrote.

    Args:
        masks: the masks.
        repository: `user/name`.
        private: of a repository that is made now; one that exists stays as it is.
        revision: the branch; made where there is none. None for the default branch.
        message: of the commit.
        may_replace: asked, before anything is written, with the files there that this program did not write; it raises if
            they must stay.

    Returns:
        The repository and the commit.

    Raises:
        ClasError: the name is none of the Hub's, you may not write there, or the Hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    if hub_id(repository) != (repository, None):
        raise ClasError(f"'{repository}' is no repository of the Hub; give it as user/name, and a branch with --revision.")
    api = HfApi(library_name="lm-eval-clas")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        with _told(repository):
            present = _present(api, repository, revision)
        files = [CommitOperationAdd(name, folder / name) for name in write_folder(masks, repository, folder, present.card)]
        may_replace([f"{name} in {repository}" for name in present.foreign(folder)])
        with _told(repository):
            api.create_repo(repository, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repository, branch=revision, exist_ok=True)
            commit = api.create_commit(
                repository,
                files,
                commit_message=message or f"CLAS masks {masks.hash}",
                revision=revision,
                parent_commit=present.commit,  # what was looked at is what is replaced
            )
    return HubOrigin(repository, str(commit.oid))


def _present(api: Any, repository: str, revision: str | None) -> Present:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = api.model_info(repository, revision=revision, files_metadata=True)
    except RevisionNotFoundError:
        info = api.model_info(repository, files_metadata=True)  # a new branch begins with what the default one holds
    except GatedRepoError:
        raise
    except RepositoryNotFoundError:
        return Present()

    def fetched(name: str) -> Path:
        return Path(api.hf_hub_download(repository, name, revision=info.sha))

    known = {one.rfilename: one.lfs and one.lfs.sha256 for one in info.siblings or []}
    ours = {CARD, PICTURE, MASKS_CONFIG_FILE} | {name for name in known if name.endswith(".safetensors") and "/" not in name}
    hashes = {name: known[name] or sha256(fetched(name)) for name in sorted(ours & set(known))}
    card, written = "", {}
    if CARD in hashes:
        try:
            card = fetched(CARD).read_bytes().decode()
        except UnicodeDecodeError as error:
            raise ClasError(f"The {CARD} in {repository} is no UTF-8 text; correct or delete it there first.") from error
        if block := find_block(card):
            written = {**block.files, **({CARD: hashes[CARD]} if block.intact else {})}
    if MASKS_CONFIG_FILE in hashes:
        try:
            written.update(read_config(fetched(MASKS_CONFIG_FILE).parent).files)
            written[MASKS_CONFIG_FILE] = hashes[MASKS_CONFIG_FILE]
        except ClasError:
            pass  # somebody else's, or a newer version's
    return Present(info.sha, hashes, card, written)


@contextmanager
def _told(repository: str) -> Iterator[None]:
    """What the Hub's client raises, as one sentence."""
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    try:
        yield
    except ClasError:
        raise
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", None)
        reason = str(error).strip().splitlines()[0]
        if status in (401, 403):
            reason = "you are not logged in with a token that may write there; run 'hf auth login'"
        elif status == 412:
            reason = "somebody committed to it meanwhile; push again"
        raise ClasError(f"Cannot push to '{repository}': {reason}.") from error
    except OfflineModeIsEnabled as error:
        raise ClasError(f"Cannot push to '{repository}': HF_HUB_OFFLINE is set; unset it.") from error
    except HFValidationError as error:
        raise ClasError(f"'{repository}' is no name that the Hub allows: {str(error).splitlines()[0]}") from error
    except Exception as error:  # httpx's and requests' errors have no base in common
        reason = first_line(error)
        raise ClasError(f"Cannot push to '{repository}', the Hub cannot be reached ({reason}).") from error
