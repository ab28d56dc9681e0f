"""The folder of an export: where it came from, what in it is ours, whether it is whole, and how it is written anew.

`clas_export.json` holds the hash of every other file, and what identifies the source. So a folder is passed over only if all of
its files are there as they were written, and would be written again from the same source; and nothing is replaced that the
record does not show to be ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.checkpoint import Checkpoint
from lm_eval_clas.disk.checked_json import read_json
from lm_eval_clas.disk.files import cannot_write, put_text, sha256, writing
from lm_eval_clas.disk.written import require_place
from lm_eval_clas.export.card_blocks import find_block
from lm_eval_clas.export.cards import export_card
from lm_eval_clas.export.outline import EXPORT_FILE, Outline, Scaling, provenance
from lm_eval_clas.masks.mask_place import CARD
from lm_eval_clas.masks.mask_set import MaskSet

_FILES, _SEAL = "files", "record_sha256"


def source_of(model: Outline, checkpoint: Checkpoint | None) -> dict[str, Any]:
    """What identifies the files that an export is made from.

    Of a local model, the hash of each file that is copied or read; of one on the Hub, the commit and the sizes.

    Args:
        model: the model.
        checkpoint: for a merged export; None for an adapter, which is made from the configuration alone.
    """
    place = Path(model.pretrained)
    if checkpoint is not None:
        paths = {name: checkpoint.folder / name for name in checkpoint.names}
    elif place.is_dir():
        paths = {path.name: path for path in sorted([place / "config.json", *place.glob("*.py")]) if path.is_file()}
    else:
        paths = {place.name: place} if place.is_file() else {}
    if place.exists():
        return {_FILES: {name: sha256(path) for name, path in paths.items()}}
    commit = checkpoint.folder.name if checkpoint else getattr(model.config, "_commit_hash", None)
    return {"commit": commit, "sizes": {name: path.stat().st_size for name, path in paths.items()}}


@dataclass(frozen=True)
class ExportThere:
    """What lies where an export goes.

    Attributes:
        whole: whether it is this very export, with all of its files.
        entries: the names of what is in the folder.
        doubtful: paths of files that an export would replace, and that were changed or are not ours.
        card: the text of the card.
    """

    whole: bool = False
    entries: frozenset[str] = frozenset()
    doubtful: tuple[str, ...] = ()
    card: str = ""


@dataclass(frozen=True)
class Export:
    """One language's export: what it is made of, and where it goes.

    Attributes:
        scaling: the factors.
        masks: where they come from.
        model: what they scale.
        kind: `ia3` or `merged`.
        source: what `source_of` returned.
        folder: to write.
    """

    scaling: Scaling
    masks: MaskSet
    model: Outline
    kind: str
    source: Mapping[str, Any]
    folder: Path

    def record(self) -> dict[str, Any]:
        """The contents of `clas_export.json` but for the hashes of files."""
        return {
            **provenance(self.scaling, self.masks, self.model, self.kind),
            "modules": [place.name for place in self.model.places(self.scaling)],
            "source": dict(self.source),
        }

    def card(self, before: str = "") -> str:
        """The card, with what a person added to the one that is there."""
        return export_card(self.scaling, self.masks, self.model, self.kind, before, str(self.folder / CARD))

    def find(self, known: Mapping[str, str] = MappingProxyType({})) -> ExportThere:
        """Looks at the folder, and changes nothing.

        Args:
            known: the hashes of those files whose contents are known before they are written, by name.

        Raises:
            ClasError: it is no folder, or holds what no export wrote; the first such file is named.
        """
        require_place(self.folder)
        entries = _entries(self.folder) if self.folder.is_dir() else frozenset()
        if not entries:
            return ExportThere()
        record, edited = _read_record(self.folder / EXPORT_FILE)
        written: dict[str, str] = record.get(_FILES, {})
        if strange := sorted(entries - set(written) - ({EXPORT_FILE, CARD} if record else {CARD})):
            more = f" and {len(strange) - 1} more" if strange[1:] else ""
            raise ClasError(
                f"'{self.folder}' holds '{strange[0]}'{more}, which no record of clas export shows to be its own; move it "
                "away, or give another --out."
            )
        hashes = {name: _hash(self.folder / name) for name in sorted(entries - {CARD, EXPORT_FILE})}
        doubtful = [name for name, found in hashes.items() if found != written[name]]
        doubtful += [EXPORT_FILE] if record and edited else []
        card = self._card_there() if CARD in entries else ""
        block = find_block(card)
        if CARD in entries and (block is None or not block.intact):
            doubtful.append(CARD)
        fresh = find_block(self.card())
        whole = (
            not doubtful
            and entries == {*written, EXPORT_FILE}
            and {**json.loads(json.dumps(self.record())), _FILES: written} == record
            and self.source.get("commit", "") is not None
            and all(written.get(name) == one for name, one in known.items())
            and block is not None
            and fresh is not None
            and block.body == fresh.body
        )
        return ExportThere(whole, entries, tuple(str(self.folder / name) for name in doubtful), card)

    @contextmanager
    def writing(self, found: ExportThere) -> Iterator[Path]:
        """Yields an empty folder, and puts it, with card and record, in the place of the export: whole or not at all.

        Where the place is a link, the link stays.

        Raises:
            ClasError: the place cannot be written, or something was put there meanwhile.
        """
        target = Path(os.path.realpath(self.folder))
        aside: Path | None = None
        try:
            with writing(target) as temporary:
                temporary.mkdir()
                yield temporary
                (temporary / CARD).write_bytes(self.card(found.card).encode())
                files = {name: sha256(temporary / name) for name in sorted(_entries(temporary) - {EXPORT_FILE})}
                record = _sealed({**self.record(), _FILES: files})
                put_text(temporary / EXPORT_FILE, json.dumps(record, indent=2) + "\n")
                if (_entries(target) if target.is_dir() else frozenset()) != found.entries:
                    raise ClasError(f"'{self.folder}' was changed while the export was made; look at it, and start again.")
                if found.entries:
                    # Named like the folders that `writing` works in, so that a killed process leaves nothing behind.
                    name = f".{target.name}.{os.getpid()}-"
                    aside = Path(tempfile.mkdtemp(prefix=name, suffix=".partial", dir=target.parent))
                    os.replace(target, aside / target.name)
        except BaseException:
            if aside is not None and not target.exists() and (aside / target.name).exists():
                os.replace(aside / target.name, target)
            raise
        finally:
            if aside is not None:
                shutil.rmtree(aside, ignore_errors=True)

    def _card_there(self) -> str:
        path = self.folder / CARD
        try:
            return path.read_bytes().decode()
        except UnicodeDecodeError as error:
            raise ClasError(f"'{path}' is no UTF-8 text; move it away, or give another --out.") from error
        except OSError as error:
            raise cannot_write(path, error) from error


def _entries(folder: Path) -> frozenset[str]:
    """The names of all files in a folder, at any depth, of links to folders, and of folders with nothing in them."""
    found = set()
    for place, folders, files in os.walk(folder):
        here = Path(place)
        links = [name for name in folders if (here / name).is_symlink()]
        found |= {(here / name).relative_to(folder).as_posix() for name in [*files, *links]}
        if here != folder and not folders and not files:
            found.add(here.relative_to(folder).as_posix())
    return frozenset(found)


def _hash(path: Path) -> str | None:
    """A file's hash; None for a link to nothing, a pipe, or a file that cannot be read."""
    try:
        return sha256(path) if path.is_file() else None
    except OSError:
        return None


def _sealed(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the hash of its own contents."""
    content = {key: value for key, value in record.items() if key != _SEAL}
    return {**content, _SEAL: hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()}


def _read_record(path: Path) -> tuple[dict[str, Any], bool]:
    """A record, and whether somebody edited it; an empty one where there is none that tells of files."""
    try:
        record = read_json(path)
        files = record[_FILES]
        if not all(isinstance(one, str) for one in files.values()):
            raise ValueError("its hashes are none")
        edited = _sealed(record)[_SEAL] != record.pop(_SEAL)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, True
    return record, edited
