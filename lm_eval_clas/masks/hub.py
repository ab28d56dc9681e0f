"""Where masks are: a folder, a shipped one by its name, or `user/name[@revision]` on the Hugging Face Hub or in its cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.near_names import nearest
from lm_eval_clas.disk.files import shipped
from lm_eval_clas.masks.mask_config import MASKS_CONFIG_FILE
from lm_eval_clas.masks.mask_place import MASKS_FILES


@dataclass(frozen=True)
class HubOrigin:
    """Where masks were loaded from: a repository, and the commit that its revision stood for."""

    repository: str
    revision: str

    def info(self) -> dict[str, str]:
        """As results files and exports note it."""
        return {"masks_repository": self.repository, "masks_revision": self.revision}


def hub_id(source: str) -> tuple[str, str | None] | None:
    """Repository and revision (a branch, a tag or a commit) of `user/name[@revision]`; None for what was meant as a path."""
    repository, at, revision = source.partition("@")
    parts = repository.split("/")
    if len(parts) != 2 or not all(parts) or source.startswith((".", "~", "masks/")) or (at and not revision):
        return None
    return repository, revision or None


def fetch(repository: str, revision: str | None, files: Sequence[str], otherwise: str) -> tuple[Path, HubOrigin]:
    """The folder of a repository's snapshot with these files, and which commit it is.

    Offline, or where the Hub cannot be reached, it is what the Hub's cache holds.

    Args:
        repository: `user/name`.
        revision: branch, tag or commit; None for the default branch.
        files: names to download; those that do not exist are passed over.
        otherwise: what the user may use instead, for the error.

    Raises:
        ClasError: no such repository or revision, or neither network nor cache has it.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    shown = f"{repository}@{revision}" if revision else repository
    try:
        folder = Path(snapshot_download(repository, revision=revision, allow_patterns=list(files)))
        return folder, HubOrigin(repository, folder.name)  # the cache names a snapshot's folder after its commit
    except RevisionNotFoundError as error:
        reason = f"the repository {repository} has no revision '{revision}'"
        cause: Exception = error
    except RepositoryNotFoundError as error:
        reason = "the Hub has no such repository (or it is private and you are not logged in)"
        cause = error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        # ValueError: httpx and huggingface_hub raise it for names and addresses that cannot be requested.
        reason = "the Hub cannot be reached and its cache does not hold them"
        cause = error
    raise ClasError(
        f"There are no masks '{shown}': no such folder here, and {reason}; check the name and the connection, or use "
        f"{otherwise}."
    ) from cause


def locate(source: str | Path) -> tuple[Path, HubOrigin | None]:
    """The folder that a user means, and where on the Hub it is from.

    Raises:
        ClasError: there is none.
    """
    try:
        path = Path(source).expanduser()
        is_folder, is_file = path.is_dir(), path.exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ClasError(f"There can be no masks at '{str(source)[:200]}' ({error}); give the path of a folder.") from error
    if is_folder:
        return path, None
    known = sorted(folder.name for folder in shipped("masks").iterdir() if (folder / MASKS_CONFIG_FILE).is_file())
    name = str(source).removeprefix("masks/").rstrip("/")
    if name in known:
        return shipped("masks") / name, None
    if is_file:
        raise ClasError(f"'{source}' is a file; masks are a folder with a {MASKS_CONFIG_FILE}: give its path.")
    if repository := hub_id(str(source)):
        ours = f"masks that ship with the package: {', '.join(known) or 'none'}"
        return fetch(*repository, files=MASKS_FILES, otherwise=ours)
    near = nearest(name, known, most=3, like=0.3) or known
    raise ClasError(
        f"There are no masks at '{source}'; the nearest that ship with the package: {', '.join(near) or 'none'}. Give one of "
        "these names, a folder that 'clas masks' wrote, or a Hub repository as user/name or user/name@revision."
    )
