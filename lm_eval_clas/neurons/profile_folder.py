"""`StoredProfile`: what was measured by language, and the folder it is kept in; `Profile`: sums of neurons' activations.

clas_profile.json       what was profiled on what: model, corpus, languages
LANGUAGE.safetensors    one finished language: `TOKENS.STATISTIC`, float64 [layers, neurons], and `counts`, int64 [2], of
                        all real tokens and of last ones; of a mixture of experts, float32, as there are many neurons, and
                        `routed`, int64 [2, layers, units], of the tokens that reached each expert
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError, field_validator
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.fingerprint import ModelFingerprint, model_name
from lm_eval_clas.decoder.projections import Projection, Site
from lm_eval_clas.disk.checked_json import Strict, first_fault, read_json
from lm_eval_clas.disk.files import write_text
from lm_eval_clas.disk.tensors import Shapes, read_tensors, write_tensors
from lm_eval_clas.disk.weight_files import weights_hash
from lm_eval_clas.disk.written import claimed
from lm_eval_clas.languages.codes import LanguageCode
from lm_eval_clas.neurons.activity import STATISTICS, TOKENS, By, FirstToken, ProfiledSite, Statistic, Tokens
from lm_eval_clas.texts.corpora import ParallelTexts

if TYPE_CHECKING:
    from typing_extensions import Self

PROFILE_FORMAT = 2
PROFILE_CONFIG_FILE = "clas_profile.json"


class ProfileConfig(Strict):
    """What a profile was made of: the contents of `clas_profile.json`. Two profiles of one kind can be merged.

    Attributes:
        first_token: whether the first position of a text counted; older folders, which do not say, kept it.
        weights: of a model in a local folder, and of adapters there, `weights_hash`; None elsewhere, and in older folders.
    """

    format_version: int = PROFILE_FORMAT
    model: str
    revision: str | None = None
    fingerprint: ModelFingerprint
    site: ProfiledSite = "mlp"
    projection: str | None = None
    corpus: str
    corpus_sha256: str
    languages: list[LanguageCode]
    samples: int
    max_tokens: int
    first_token: FirstToken = "keep"
    weights: str | None = None

    def differences(self, other: ProfileConfig) -> list[str]:
        """The names of what is not as in another; weights that either does not know may be any."""
        unknown = {"weights"} if None in (self.weights, other.weights) else set()
        return [name for name in type(self).model_fields if name not in unknown and getattr(self, name) != getattr(other, name)]

    @property
    def experts(self) -> bool:
        """Whether the model is a mixture of experts, each of which sees some of the tokens."""
        layout = self.fingerprint.layout
        return self.site == "mlp" and layout is not None and layout.shared_out

    @field_validator("languages")
    @classmethod
    def _each_once(cls, languages: list[str]) -> list[str]:
        if len(set(languages)) < len(languages):
            raise ValueError("a language is listed twice")
        return languages


@dataclass(frozen=True)
class Sums:
    """One language's sums over texts.

    Attributes:
        sums: by tokens and statistic, float64 [layers, neurons]; float32 of a mixture of experts.
        counts: by tokens, how many tokens were summed: all real ones, or one per text.
        routed: of a mixture of experts: by tokens, how many reached each expert, int64 [layers, units]; all of them, for an
            MLP that all tokens share.
    """

    sums: dict[tuple[Tokens, Statistic], NDArray[np.floating[Any]]]
    counts: dict[Tokens, int]
    routed: dict[Tokens, NDArray[np.int64]] | None = None

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            {key: self.sums[key] + other.sums[key] for key in self.sums},
            {key: self.counts[key] + other.counts[key] for key in self.counts},
            None
            if self.routed is None or other.routed is None
            else {key: self.routed[key] + other.routed[key] for key in TOKENS},
        )


class Mergeable(Protocol):
    """What was measured in one language, of some texts."""

    def __add__(self, other: Any, /) -> Any: ...


OfLanguage = TypeVar("OfLanguage", bound=Mergeable)


@dataclass(frozen=True)
class StoredProfile(ABC, Generic[OfLanguage]):
    """What was measured of a model, language by language, and on what.

    Attributes:
        sites: those that this kind of profile is of.
        kind, remedy: what it is called where it is asked for and another is given, and what to do then.
    """

    config: ProfileConfig
    by_language: dict[str, OfLanguage] = field(default_factory=dict)

    sites: ClassVar[tuple[ProfiledSite, ...]]
    kind: ClassVar[str]
    remedy: ClassVar[str]

    @property
    def languages(self) -> tuple[str, ...]:
        """The profiled languages, in the configuration's order."""
        return tuple(language for language in self.config.languages if language in self.by_language)

    @staticmethod
    @abstractmethod
    def tensors(one: OfLanguage) -> dict[str, NDArray[Any]]:
        """One language, as it is written."""

    @staticmethod
    @abstractmethod
    def shapes(config: ProfileConfig) -> Shapes:
        """What a language's file must hold."""

    @staticmethod
    @abstractmethod
    def from_tensors(found: dict[str, NDArray[Any]]) -> OfLanguage:
        """One language, from what was read.

        Raises:
            ValueError: the numbers cannot be sums of anything.
        """

    def merge(self, other: Self) -> Self:
        """The profile of both sets of texts together: sums add up, language by language.

        Raises:
            ClasError: the profiles are of different models, sites or languages, or were made in different ways.
        """
        same = ("fingerprint", "site", "projection", "languages", "max_tokens", "first_token", "weights")
        if different := [name for name in self.config.differences(other.config) if name in same]:
            raise ClasError(f"Two profiles cannot be merged: they differ in {different[0]}.")
        config = self.config.model_copy(
            update={
                "samples": self.config.samples + other.config.samples,
                "corpus_sha256": f"{self.config.corpus_sha256}+{other.config.corpus_sha256}",
            }
        )
        return type(self)(config, {one: self.by_language[one] + other.by_language[one] for one in self.languages})

    def save(self, folder: str | Path) -> None:
        """Writes `clas_profile.json` and one file per language, each whole or not at all.

        Raises:
            ClasError: a file of such a name is there and is not ours, or the folder cannot be written.
        """
        with claimed(folder, [PROFILE_CONFIG_FILE, *(f"{language}.safetensors" for language in self.by_language)]):
            save_config(self.config, Path(folder))
            for language, one in self.by_language.items():
                self.save_language(one, Path(folder), language)

    @classmethod
    def save_language(cls, one: OfLanguage, folder: Path, language: str) -> None:
        """Writes what was measured in one language."""
        write_tensors(folder / f"{language}.safetensors", cls.tensors(one))

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads a folder that `clas profile` wrote, with the languages that are finished.

        Raises:
            ClasError: it is not such a folder, of another kind, or damaged.
        """
        folder = Path(folder)
        config = load_config(folder)
        if config is None:
            raise ClasError(f"'{folder}' is not a profile: it has no {PROFILE_CONFIG_FILE}; make one with 'clas profile'.")
        if config.site not in cls.sites:
            raise ClasError(f"'{folder}' is a profile of site {config.site}, and not {cls.kind}; {cls.remedy}.")
        finished = [one for one in config.languages if (folder / f"{one}.safetensors").is_file()]
        return cls(config, {language: cls._load_language(folder, language, config) for language in finished})

    @classmethod
    def _load_language(cls, folder: Path, language: str, config: ProfileConfig) -> OfLanguage:
        path = folder / f"{language}.safetensors"
        try:
            return cls.from_tensors(read_tensors(path, cls.shapes(config)))
        except ValueError as error:
            raise ClasError(f"'{path}' is damaged ({error}); profile again into another folder.") from error

    @classmethod
    def load_finished(cls, folder: str | Path) -> Self:
        """Reads a folder in which every language is finished.

        Raises:
            ClasError: it is not a profile, damaged, or not finished.
        """
        loaded = cls.load(folder)
        if missing := [one for one in loaded.config.languages if one not in loaded.languages]:
            raise ClasError(f"The profile '{folder}' is not finished ({', '.join(missing)} missing); run 'clas profile' again.")
        return loaded


@dataclass(frozen=True)
class Profile(StoredProfile[Sums]):
    """Sums of neurons' activations by language, and where they came from."""

    sites = ("mlp", "attn")
    kind = "of neurons"
    remedy = "give one that 'clas profile' made without --site residual"

    @property
    def site(self) -> Site:
        """Where its neurons are."""
        assert self.config.site != "residual"
        return self.config.site

    def mean(self, statistic: Statistic, tokens: Tokens) -> NDArray[np.float32]:
        """The mean of a statistic (`signed-mean`, `mean-abs`, `share-positive`) over `all` or `last` tokens.

        Returns:
            float32 [languages, layers, neurons], languages in the order of `languages`; 0 for neurons of experts that no
            token reached.
        """
        layout = self.config.fingerprint.layout
        means = np.empty((len(self.languages), self.config.fingerprint.layers, self.config.fingerprint.neurons), np.float32)
        for mean, language in zip(means, self.languages, strict=True):
            one = self.by_language[language]
            if one.routed is None or layout is None:
                mean[:] = one.sums[tokens, statistic] / one.counts[tokens]
            else:
                mean[:] = one.sums[tokens, statistic] / layout.spread(np.maximum(one.routed[tokens], 1)).clip(1)
        return means

    def tokens_seen(self, tokens: Tokens) -> NDArray[np.int64] | None:
        """How many tokens reached each expert, int64 [languages, layers, units]; None where all tokens take the same way."""
        routed = [self.by_language[language].routed for language in self.languages]
        return None if any(one is None for one in routed) else np.stack([one[tokens] for one in routed if one is not None])

    def units(self, statistic: Statistic, tokens: Tokens, by: By) -> NDArray[np.floating[Any]]:
        """The mean of a statistic over tokens by channel, as `mean`, or by head: float32 [languages, layers, heads].

        Raises:
            ClasError: by head, and the profile is not of attention, or of an unknown number of heads.
        """
        if by == "channel":
            return self.mean(statistic, tokens)
        if self.config.site != "attn":
            raise ClasError("Only attention has heads, and this profile is of MLPs; make one with 'clas profile --site attn'.")
        if not self.config.fingerprint.has_heads:
            raise ClasError("This model's configuration names no number of heads that its attention has; drop --by head.")
        return self.config.fingerprint.pool(self.mean(statistic, tokens))

    @staticmethod
    def tensors(one: Sums) -> dict[str, NDArray[Any]]:
        tensors: dict[str, NDArray[Any]] = {f"{tokens}.{statistic}": value for (tokens, statistic), value in one.sums.items()}
        tensors["counts"] = np.array([one.counts[tokens] for tokens in TOKENS], dtype=np.int64)
        if one.routed is not None:
            tensors["routed"] = np.stack([one.routed[tokens] for tokens in TOKENS])
        return tensors

    @staticmethod
    def shapes(config: ProfileConfig) -> Shapes:
        shape = (config.fingerprint.layers, config.fingerprint.neurons)
        kind = "float32" if config.experts else "float64"
        expected: dict[str, tuple[str, tuple[int, ...]]] = {
            **dict.fromkeys(_NAMES.values(), (kind, shape)),
            "counts": ("int64", (len(TOKENS),)),
        }
        layout = config.fingerprint.layout
        if config.experts and layout is not None:
            expected["routed"] = ("int64", (len(TOKENS), shape[0], layout.units))
        return expected

    @staticmethod
    def from_tensors(found: dict[str, NDArray[Any]]) -> Sums:
        if found["counts"].min() < 1 or any(not np.isfinite(found[name]).all() for name in _NAMES.values()):
            raise ValueError("it holds counts below 1 or sums that are not finite")
        if "routed" in found and found["routed"].min() < 0:
            raise ValueError("it holds counts below 0")
        counts = {tokens: int(count) for tokens, count in zip(TOKENS, found["counts"], strict=True)}
        routed = dict(zip(TOKENS, found["routed"], strict=True)) if "routed" in found else None
        return Sums({key: found[name] for key, name in _NAMES.items()}, counts, routed)


# By tokens and statistic, the name of its tensor.
_NAMES = {(tokens, statistic): f"{tokens}.{statistic}" for tokens in TOKENS for statistic in STATISTICS}


def save_config(config: ProfileConfig, folder: Path) -> None:
    """Writes `clas_profile.json`.

    Raises:
        ClasError: it cannot be written, or a name in it could not be read again.
    """
    for what in ("model", "corpus"):
        if not (name := getattr(config, what)).isprintable():
            raise ClasError(f"The {what}'s name {name!a} cannot be printed on one line; give another one.")
    write_text(folder / PROFILE_CONFIG_FILE, json.dumps(config.model_dump(), indent=2, ensure_ascii=False) + "\n")


def config_of(
    model: nn.Module, projections: list[Projection], texts: ParallelTexts, model_args: str = "", **options: Any
) -> ProfileConfig:
    """What a profile of a model on these texts is made of.

    Args:
        model_args: what the harness loaded it with, for adapters.
        options: `name` of the model, or None for its own; `site`, `projection`, `max_tokens` and `first_token`.
    """
    name = options.pop("name")
    return ProfileConfig(
        model=name or model_name(str(getattr(model.config, "_name_or_path", "") or type(model).__name__)),
        revision=getattr(model.config, "_commit_hash", None),
        fingerprint=ModelFingerprint.of(model, projections),
        weights=weights_hash(str(getattr(model.config, "_name_or_path", "")), model_args),
        corpus=texts.name,
        corpus_sha256=texts.sha256(),
        languages=list(texts.languages),
        samples=len(texts.ids),
        **options,
    )


def take_folder(folder: Path, config: ProfileConfig) -> bool:
    """Takes a folder for a profile, and says whether it was taken for this very one before.

    Raises:
        ClasError: it holds a profile of something else, or cannot be written.
    """
    before = load_config(folder)
    if before is None:
        save_config(config, folder)
        return False
    if changed := before.differences(config):
        raise ClasError(
            f"'{folder}' holds another profile (it differs in {', '.join(changed)}); choose another --out or delete it."
        )
    return True


def load_config(folder: Path) -> ProfileConfig | None:
    """Reads `clas_profile.json`; None if there is none.

    Raises:
        ClasError: it is damaged or of another format version.
    """
    path = folder / PROFILE_CONFIG_FILE
    try:
        content = read_json(path, printable=True)
        if content["format_version"] != PROFILE_FORMAT:
            raise ClasError(
                f"'{path}' has format version {content['format_version']!r:.40}, this lm-eval-clas reads {PROFILE_FORMAT}; "
                "profile again into another folder."
            )
        return ProfileConfig.model_validate(content)
    except FileNotFoundError:
        return None
    except ClasError:
        raise
    except ValidationError as error:
        raise ClasError(
            f"'{path}' cannot be read as a profile's ({first_fault(error)}); profile again into another folder."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        why = str(error) if isinstance(error, ValueError) else "it has no format version"
        raise ClasError(f"'{path}' cannot be read as a profile's ({why}); profile again into another folder.") from error
