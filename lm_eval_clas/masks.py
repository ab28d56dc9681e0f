"""`MaskSet`: which neurons are active in which languages, and where to steer them; the folder format, read and written.

clas_config.json     what the masks are: model, languages, corpus, rule, bridge layers, strengths (readable, checked)
masks.safetensors    `active`: uint8, bits packed along neurons, [languages, layers, ceil(neurons / 8)]
profile.safetensors  optional: `means`, float32 [languages, layers, neurons], and `counts`, int64 [languages]
"""

from __future__ import annotations

import datetime
import difflib
import hashlib
import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from lm_eval_clas import __version__
from lm_eval_clas.bridge import select_bridge_layers
from lm_eval_clas.categories import NeuronCategorizer, Statistic, Tokens, categorize
from lm_eval_clas.errors import ClasError
from lm_eval_clas.files import sha256, shipped, write_text, writing
from lm_eval_clas.fingerprint import ModelFingerprint
from lm_eval_clas.tuned import Tuned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lm_eval_clas.profiles import Profile

FORMAT_VERSION = 1
CONFIG_FILE = "clas_config.json"
MASKS_FILE = "masks.safetensors"
PROFILE_FILE = "profile.safetensors"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class ModelSource(_Strict):
    """The model that was profiled."""

    name: str
    revision: str | None = None
    fingerprint: ModelFingerprint


class CorpusSource(_Strict):
    """The texts it was profiled on. Samples and tokens are counted by language."""

    name: str
    sha256: str
    samples: int
    tokens: dict[str, int]


class MaskConfig(_Strict):
    """The contents of `clas_config.json`."""

    format_version: int = FORMAT_VERSION
    model: ModelSource
    languages: list[str] = Field(min_length=2)
    anchor: str
    site: Literal["mlp"] = "mlp"
    projection: str | None = None
    statistic: Statistic = "signed-mean"
    tokens: Tokens = "all"
    threshold: float = 0.0
    corpus: CorpusSource
    bridge_layers: list[int] = Field(min_length=1)
    bridge_rule: str
    beta: float = Field(default=0.4, allow_inf_nan=False)
    gamma: float = Field(default=0.2, allow_inf_nan=False)
    instance_shares: list[list[float]] | None = None
    tuned: Tuned = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    package_version: str = __version__
    date: str = Field(default_factory=lambda: datetime.date.today().isoformat())

    @model_validator(mode="after")
    def _consistent(self) -> MaskConfig:
        if len(set(self.languages)) != len(self.languages):
            raise ValueError("a language is listed twice")
        if self.anchor not in self.languages:
            raise ValueError(f"the anchor '{self.anchor}' is not one of its languages")
        layers = self.model.fingerprint.layers
        if (
            sorted(set(self.bridge_layers)) != self.bridge_layers
            or not 0 <= min(self.bridge_layers) <= max(self.bridge_layers) < layers
        ):
            raise ValueError(f"bridge layers {self.bridge_layers} are not ascending layers of 0-{layers - 1}")
        for by_language in self.tuned.values():
            if unknown := set(by_language) - set(self.languages):
                raise ValueError(f"strengths are tuned for languages it does not have: {', '.join(sorted(unknown))}")
            if any(not 0 <= layer < layers for tuned in by_language.values() for layer in tuned.chosen.layers):
                raise ValueError(f"a tuned strength names layers outside 0-{layers - 1}")
        return self


@dataclass(frozen=True)
class MaskSet:
    """Active neurons by language, with everything that is known of where they came from.

    Attributes:
        config: the contents of `clas_config.json`.
        active: bool [languages, layers, neurons], in the order of `languages`.
        means: float32 [languages, layers, neurons], the statistic the masks came from, where it was kept.
    """

    config: MaskConfig
    active: NDArray[np.bool_]
    means: NDArray[np.float32] | None = None

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP-47 codes, the anchor among them."""
        return tuple(self.config.languages)

    @property
    def anchor(self) -> str:
        """The language that is never steered."""
        return self.config.anchor

    @property
    def bridge_layers(self) -> tuple[int, ...]:
        """Zero-based, ascending."""
        return tuple(self.config.bridge_layers)

    @cached_property
    def categories(self) -> NDArray[np.uint8]:
        """uint8 [layers, neurons]: 0 dead, 1 language-specific, 2 partial-shared, 3 all-shared."""
        return categorize(self.active)

    @cached_property
    def hash(self) -> str:
        """16 hex digits over what decides the steering: active neurons, languages, anchor, bridge layers."""
        decides = [self.config.languages, self.anchor, self.config.bridge_layers, list(self.active.shape)]
        content = json.dumps(decides).encode() + np.packbits(self.active, axis=-1).tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def index(self, language: str) -> int:
        """The position of a language.

        Raises:
            ClasError: the masks do not have it.
        """
        if language not in self.languages:
            raise ClasError(
                f"The masks have no language '{language}', only {', '.join(self.languages)}; profile it or use another."
            )
        return self.languages.index(language)

    def active_in(self, language: str) -> NDArray[np.bool_]:
        """bool [layers, neurons] for one language."""
        one: NDArray[np.bool_] = self.active[self.index(language)]
        return one

    @classmethod
    def from_profile(
        cls,
        profile: Profile,
        *,
        categorizer: NeuronCategorizer | None = None,
        anchor: str = "en",
        bridge: str | int | Sequence[int] = "auto",
        exclude_last: int = 2,
        keep_means: bool = False,
    ) -> MaskSet:
        """Makes masks from a profile.

        Args:
            profile: sums of activations by language.
            categorizer: when a neuron counts as active; default: signed mean over all tokens above 0.
            anchor: the language that is never steered.
            bridge: `auto`, or layers as a range like `24-29`.
            exclude_last: for `auto`, how many of the last layers to leave out.
            keep_means: whether the means go into the folder too.

        Raises:
            ClasError: the anchor was not profiled, or no bridge layer can be chosen.
        """
        categorizer = categorizer or NeuronCategorizer()
        if anchor not in profile.languages:
            raise ClasError(f"The anchor '{anchor}' was not profiled ({', '.join(profile.languages)} were); give another.")
        active = categorizer.active(profile)
        choice = select_bridge_layers(categorize(active), bridge, exclude_last)
        source = profile.config
        config = MaskConfig(
            model=ModelSource(name=source.model, revision=source.revision, fingerprint=source.fingerprint),
            languages=list(profile.languages),
            anchor=anchor,
            projection=source.projection,
            statistic=categorizer.statistic,
            tokens=categorizer.tokens,
            threshold=categorizer.threshold,
            corpus=CorpusSource(
                name=source.corpus,
                sha256=source.corpus_sha256,
                samples=source.samples,
                tokens={one: profile.by_language[one].counts[categorizer.tokens] for one in profile.languages},
            ),
            bridge_layers=list(choice.layers),
            bridge_rule=choice.why,
        )
        means = profile.mean(categorizer.statistic, categorizer.tokens) if keep_means else None
        return cls(config, active, means)

    def with_instance_shares(self, shares: NDArray[np.float64]) -> MaskSet:
        """The same masks with per-input category shares, float64 [layers, 4], noted in the configuration."""
        rounded = [[round(float(value), 6) for value in row] for row in shares]
        return replace(self, config=self.config.model_copy(update={"instance_shares": rounded}))

    def with_strengths(self, beta: float, gamma: float) -> MaskSet:
        """The same masks with other amplification and damping."""
        return replace(self, config=self.config.model_copy(update={"beta": beta, "gamma": gamma}))

    def with_tuned(self, tuned: Tuned) -> MaskSet:
        """The same masks with tuned strengths; those of other tasks and languages stay."""
        both = {family: {**self.config.tuned.get(family, {}), **tuned.get(family, {})} for family in self.config.tuned | tuned}
        return replace(self, config=self.config.model_copy(update={"tuned": both}))

    def save(self, folder: str | Path) -> Path:
        """Writes the folder, each file whole or not at all; the configuration last, since it vouches for the others."""
        folder = Path(folder)
        tensors: dict[str, dict[str, NDArray[Any]]] = {MASKS_FILE: {"active": np.packbits(self.active, axis=-1)}}
        if self.means is not None:
            counts = [self.config.corpus.tokens.get(language, 0) for language in self.languages]
            tensors[PROFILE_FILE] = {"means": self.means, "counts": np.array(counts, dtype=np.int64)}
        files = {}
        for name, content in tensors.items():
            with writing(folder / name) as temporary:
                save_file(content, temporary)
            files[name] = sha256(folder / name)
        config = self.config.model_copy(update={"files": files})
        write_text(folder / CONFIG_FILE, json.dumps(config.model_dump(), indent=2, ensure_ascii=False) + "\n")
        if self.means is None:
            (folder / PROFILE_FILE).unlink(missing_ok=True)
        return folder

    @classmethod
    def load(cls, source: str | Path) -> MaskSet:
        """Loads masks from a folder, by the name of a shipped folder, or from a Hub repository `user/name`.

        Raises:
            ClasError: there is no such folder, or it is damaged, changed by hand, or of a newer format.
        """
        folder = _locate(source)
        config = _read_config(folder)
        fingerprint = config.model.fingerprint
        shape = (len(config.languages), fingerprint.layers, fingerprint.neurons)
        packed = _read_tensors(folder, MASKS_FILE, config, {"active": ("uint8", (*shape[:2], -(-shape[2] // 8)))})["active"]
        active = np.unpackbits(packed, axis=-1, count=shape[2]).astype(bool)
        means = None
        if PROFILE_FILE in config.files:
            expected = {"means": ("float32", shape), "counts": ("int64", shape[:1])}
            means = _read_tensors(folder, PROFILE_FILE, config, expected)["means"]
        return cls(config, active, means)


def _locate(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    known = sorted(folder.name for folder in shipped("masks").iterdir() if (folder / CONFIG_FILE).is_file())
    name = str(source).removeprefix("masks/").rstrip("/")
    if name in known:
        return shipped("masks") / name
    if path.exists():
        raise ClasError(f"'{source}' is a file; masks are a folder with a {CONFIG_FILE}: give its path.")
    # A Hub id is exactly user/name; anything else was meant as a path.
    parts = str(source).split("/")
    if len(parts) == 2 and all(parts) and not str(source).startswith((".", "~", "masks/")):
        return _from_hub(str(source), known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.3) or known
    raise ClasError(
        f"There are no masks at '{source}'; the nearest that ship with the package: {', '.join(near) or 'none'}. Give one of "
        "these names, a folder that 'clas masks' wrote, or a Hub repository as user/name."
    )


def _from_hub(repository: str, known: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(repository, allow_patterns=[CONFIG_FILE, MASKS_FILE, PROFILE_FILE]))
    except RepositoryNotFoundError as error:
        reason = "the Hub has no such repository (or it is private and you are not logged in)"
        cause: Exception = error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        # ValueError: httpx and huggingface_hub raise it for names and addresses that cannot be requested.
        reason = "the Hub cannot be reached and its cache does not hold them"
        cause = error
    raise ClasError(
        f"There are no masks '{repository}': no such folder here, and {reason}; check the name and the connection, or use "
        f"masks that ship with the package: {', '.join(known) or 'none'}."
    ) from cause


def _read_config(folder: Path) -> MaskConfig:
    path = folder / CONFIG_FILE
    remedy = "make the folder again with 'clas masks', or fetch it again."
    try:
        content = json.loads(path.read_bytes())
        version = content["format_version"]
    except FileNotFoundError as error:
        raise ClasError(f"'{folder}' is not a mask folder: it has no {CONFIG_FILE}; {remedy}") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ClasError(f"'{path}' cannot be read as a mask configuration ({type(error).__name__}); {remedy}") from error
    if version != FORMAT_VERSION:
        raise ClasError(
            f"'{path}' has format version {version!r:.40}, this lm-eval-clas {__version__} reads {FORMAT_VERSION}; install a "
            "version that reads it, or make the masks again."
        )
    try:
        return MaskConfig.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ClasError(f"'{path}' is damaged: {where + ': ' if where else ''}{first['msg']}; {remedy}") from error


def _read_tensors(
    folder: Path, name: str, config: MaskConfig, expected: dict[str, tuple[str, tuple[int, ...]]]
) -> dict[str, NDArray[Any]]:
    path = folder / name
    remedy = "make the folder again with 'clas masks', or fetch it again."
    try:
        if sha256(path) != config.files.get(name):
            raise ClasError(f"'{path}' is damaged or was changed: its SHA-256 is not the one in {CONFIG_FILE}; {remedy}")
        tensors = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        if isinstance(error, ClasError):
            raise
        raise ClasError(f"'{path}' cannot be read ({error}); {remedy}") from error
    for key, (dtype, shape) in expected.items():
        if key not in tensors or tensors[key].dtype != dtype or tensors[key].shape != shape:
            raise ClasError(f"'{path}' must hold '{key}' as {dtype} {list(shape)}, and does not; {remedy}")
    return tensors
