"""Putting masks on the Hub: the folder, its card and its picture in one commit."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lm_eval_clas.cards import PICTURE, masks_card
from lm_eval_clas.errors import ClasError
from lm_eval_clas.files import write_text
from lm_eval_clas.hub import HubOrigin, hub_id
from lm_eval_clas.masks import MaskSet
from lm_eval_clas.plots import plot_categories

CARD = "README.md"


def write_folder(masks: MaskSet, repository: str, folder: Path) -> list[str]:
    """Writes everything that goes to the Hub into a folder, and returns the files' names."""
    masks.save(folder)
    plot_categories(masks, folder / PICTURE)
    write_text(folder / CARD, masks_card(masks, repository))
    return sorted(path.name for path in folder.iterdir())


def push(
    masks: MaskSet, repository: str, private: bool = False, revision: str | None = None, message: str | None = None
) -> HubOrigin:
    """Makes the repository where there is none, and commits the masks to it.

    It is one commit, so that no revision of the repository has masks and configuration of different folders.

    Args:
        masks: the masks.
        repository: `user/name`.
        private: of a repository that is made now; one that exists stays as it is.
        revision: the branch; made where there is none. None for the default branch.
        message: of the commit.

    Returns:
        The repository and the commit.

    Raises:
        ClasError: the name is none of the Hub's, you may not write there, or the Hub cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

    if hub_id(repository) != (repository, None):
        raise ClasError(f"'{repository}' is no repository of the Hub; give it as user/name, and a branch with --revision.")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        files = [CommitOperationAdd(name, folder / name) for name in write_folder(masks, repository, folder)]
        api = HfApi(library_name="lm-eval-clas")
        try:
            api.create_repo(repository, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(repository, branch=revision, exist_ok=True)
            commit = api.create_commit(
                repository, files, commit_message=message or f"CLAS masks {masks.hash}", revision=revision
            )
        except HfHubHTTPError as error:
            status = getattr(error.response, "status_code", None)
            reason = str(error).strip().splitlines()[0]
            if status in (401, 403):
                reason = "you are not logged in with a token that may write there; run 'hf auth login'"
            raise ClasError(f"Cannot push to '{repository}': {reason}.") from error
        except OfflineModeIsEnabled as error:
            raise ClasError(f"Cannot push to '{repository}': HF_HUB_OFFLINE is set; unset it.") from error
        except HFValidationError as error:
            raise ClasError(f"'{repository}' is no name that the Hub allows: {str(error).splitlines()[0]}") from error
        except Exception as error:  # httpx's and requests' errors have no base in common
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ClasError(f"Cannot push to '{repository}', the Hub cannot be reached ({reason}).") from error
    return HubOrigin(repository, str(commit.oid))
