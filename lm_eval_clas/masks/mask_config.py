"""`MaskConfig`: the contents of a mask folder's `clas_config.json`, checked field by field."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from lm_eval_clas.base.clock import now
from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.version import __version__
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.projections import Site
from lm_eval_clas.disk.checked_json import StrictFinite, first_fault, read_json
from lm_eval_clas.languages.codes import LanguageCode
from lm_eval_clas.masks.strengths import CLAS, Tuned, TunedMethods
from lm_eval_clas.neurons.activity import By, FirstToken, Statistic, Tokens
from lm_eval_clas.neurons.categories import CATEGORIES

if TYPE_CHECKING:
    from lm_eval_clas.neurons.profile_folder import ProfileConfig

MASKS_FORMAT = 1
MASKS_CONFIG_FILE = "clas_config.json"
REMEDY = "make the folder again with 'clas masks', or fetch it again."

Count = Annotated[int, Field(ge=0, lt=2**63)]


class ModelSource(StrictFinite):
    """The model that was profiled."""

    name: str
    revision: str | None = None
    fingerprint: ModelFingerprint

    @property
    def short_name(self) -> str:
        """The name without its owner or folder."""
        return self.name.rstrip("/").rpartition("/")[2]


class CorpusSource(StrictFinite):
    """The texts it was profiled on. Samples and tokens are counted by language; `max_tokens` is where texts were cut."""

    name: str
    sha256: str
    samples: Count
    tokens: dict[LanguageCode, Count]
    max_tokens: Count | None = None

    @classmethod
    def of(cls, profiled: ProfileConfig, tokens: dict[str, int]) -> CorpusSource:
        """The texts of a profile, of which so many tokens counted in each language."""
        return cls(
            name=profiled.corpus,
            sha256=profiled.corpus_sha256,
            samples=profiled.samples,
            tokens=tokens,
            max_tokens=profiled.max_tokens,
        )


class SpecificSource(StrictFinite):
    """Where the language-specific neurons come from.

    Attributes:
        source: `counts`, the category of neurons active in one language; `lape` (`lape.py`); or `file`, a list that
            somebody published.
        top, percentile, bar: of `lape`: the share of neurons that is kept, and the percentile of all probabilities, with its
            value, that the probability of being positive must exceed.
        file, sha256: the name of the file, and its hash.
    """

    source: Literal["counts", "lape", "file"] = "counts"
    top: float | None = None
    percentile: float | None = None
    bar: float | None = None
    file: str | None = None
    sha256: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SpecificSource:
        if self.source == "lape" and None in (self.top, self.percentile, self.bar):
            raise ValueError("lape needs top, percentile and bar")
        if self.source == "file" and None in (self.file, self.sha256):
            raise ValueError("file needs file and sha256")
        return self


class AddedLanguage(StrictFinite):
    """Plain texts of a language that was added after the parallel ones were profiled: file, hash, texts and tokens."""

    file: str
    sha256: str
    samples: Count
    tokens: Count


class ResidualSource(StrictFinite):
    """Where `residual.safetensors` comes from: what leaves the layers, for methods that act there.

    Attributes:
        languages: in the order of its tensors.
        layers: those of which it has representations of the texts: the bridge.
        corpus: the texts.
        first_token: whether the first position of a text counted.
    """

    languages: list[LanguageCode] = Field(min_length=2)
    layers: list[int] = Field(min_length=1)
    corpus: CorpusSource
    first_token: FirstToken


class MaskConfig(StrictFinite):
    """The contents of `clas_config.json`.

    Attributes:
        residual: what there is beside neurons; None for nothing.
        tuned, tuned_methods: strengths of CLAS, and of other methods by name.
        first_token: whether the first position of a text counted; older folders, which do not say, kept it.
        min_tokens: of a mixture of experts: how many tokens an expert saw at least in every language where it was measured.
    """

    format_version: int = MASKS_FORMAT
    model: ModelSource
    languages: list[LanguageCode] = Field(min_length=2)
    anchor: LanguageCode
    site: Site = "mlp"
    by: By = "channel"
    projection: str | None = None
    statistic: Statistic = "signed-mean"
    tokens: Tokens = "all"
    first_token: FirstToken = "keep"
    threshold: float = 0.0
    min_tokens: int | None = Field(default=None, gt=0)
    corpus: CorpusSource
    bridge_layers: list[int] = Field(min_length=1)
    bridge_rule: str
    beta: float = 0.4
    gamma: float = 0.2
    instance_shares: list[list[float]] | None = None
    specific: SpecificSource = Field(default_factory=SpecificSource)
    added: dict[LanguageCode, AddedLanguage] = Field(default_factory=dict)
    residual: ResidualSource | None = None
    tuned: Tuned = Field(default_factory=dict)
    tuned_methods: TunedMethods = Field(default_factory=dict)
    files: dict[str, str] = Field(default_factory=dict)
    package_version: str = __version__
    date: str = Field(default_factory=lambda: now().date().isoformat())

    @model_validator(mode="after")
    def _consistent(self) -> MaskConfig:
        if len(set(self.languages)) != len(self.languages):
            raise ValueError("a language is listed twice")
        if self.anchor not in self.languages:
            raise ValueError(f"the anchor '{self.anchor}' is not one of its languages")
        if unknown := set(self.added) - set(self.languages):
            raise ValueError(f"it names added languages that it does not have: {', '.join(sorted(unknown))}")
        if self.anchor in self.added:
            raise ValueError(f"the anchor '{self.anchor}' is an added language")
        if len(self.languages) - len(self.added) < 2:
            raise ValueError("fewer than two of its languages were profiled on parallel texts")
        if self.by == "head" and (self.site != "attn" or not self.model.fingerprint.has_heads):
            raise ValueError("it is by head, and names no attention heads")
        layers = self.model.fingerprint.layers
        if (
            sorted(set(self.bridge_layers)) != self.bridge_layers
            or not 0 <= min(self.bridge_layers) <= max(self.bridge_layers) < layers
        ):
            raise ValueError(f"bridge layers {self.bridge_layers} are not ascending layers of 0-{layers - 1}")
        if self.instance_shares is not None and [*map(len, self.instance_shares)] != layers * [len(CATEGORIES)]:
            raise ValueError(f"its shares of categories input by input are not [{layers}, {len(CATEGORIES)}]")
        if self.residual is not None and not set(self.residual.layers) <= set(range(layers)):
            raise ValueError(f"its texts are represented in layers outside 0-{layers - 1}")
        for by_language in (one for tuned in (self.tuned, *self.tuned_methods.values()) for one in tuned.values()):
            if unknown := set(by_language) - set(self.languages):
                raise ValueError(f"strengths are tuned for languages it does not have: {', '.join(sorted(unknown))}")
            if any(not 0 <= layer < layers for tuned in by_language.values() for layer in tuned.chosen.layers):
                raise ValueError(f"a tuned strength names layers outside 0-{layers - 1}")
        return self

    def tuned_of(self, method: str) -> Tuned:
        """The strengths that were tuned for a method, by task family and language."""
        return self.tuned if method == CLAS else self.tuned_methods.get(method, {})

    @property
    def activity(self) -> str:
        """What makes a neuron active, in words."""
        tokens = "all but first" if (self.tokens, self.first_token) == ("all", "skip") else self.tokens
        by = f", by head ({self.model.fingerprint.heads or 'unequal'} heads)" if self.by == "head" else ""
        seen = f", in experts that saw {self.min_tokens} tokens or more in every language" if self.min_tokens else ""
        return f"{self.statistic} over {tokens} tokens above {self.threshold:g}{by}{seen}"


def read_config(folder: Path) -> MaskConfig:
    """Reads and checks a folder's configuration.

    Raises:
        ClasError: there is none, or it is damaged or of another format version.
    """
    path = folder / MASKS_CONFIG_FILE
    try:
        content = read_json(path, printable=True)
        version = content["format_version"]
    except FileNotFoundError as error:
        raise ClasError(f"'{folder}' is not a mask folder: it has no {MASKS_CONFIG_FILE}; {REMEDY}") from error
    except (ValueError, KeyError, TypeError) as error:
        why = str(error) if isinstance(error, ValueError) else "it has no format version"
        raise ClasError(f"'{path}' cannot be read as a mask configuration ({why}); {REMEDY}") from error
    if version != MASKS_FORMAT:
        raise ClasError(
            f"'{path}' has format version {version!r:.40}, this lm-eval-clas {__version__} reads {MASKS_FORMAT}; install a "
            "version that reads it, or make the masks again."
        )
    try:
        return MaskConfig.model_validate(content)
    except ValidationError as error:
        raise ClasError(f"'{path}' is damaged: {first_fault(error)}; {REMEDY}") from error
