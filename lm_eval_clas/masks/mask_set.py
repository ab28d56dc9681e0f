"""`MaskSet`: which neurons are active in which languages, and where to steer them; the folder format, read and written.

clas_config.json     what the masks are: model, languages, corpus, rule, bridge layers, strengths (readable, checked)
masks.safetensors    `active`: uint8, bits packed along neurons, [languages, layers, ceil(neurons / 8)]; `specific` alike,
                     where each language's specific neurons do not come from counting languages; of a mixture of experts,
                     `routed`, int64 [languages, layers, units], the tokens that each expert saw
profile.safetensors  optional: `means`, float32 [languages, layers, neurons], and `counts`, int64 [languages]
residual.safetensors optional: what leaves the layers (`residual_means.py`): `means`, float32 [languages, layers, hidden],
                     `norms`, float32 [languages, layers], and `sentences`, float32 [languages, bridge layers, texts, hidden]
"""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.near_names import did_you_mean
from lm_eval_clas.decoder.heads import Scalar
from lm_eval_clas.disk.checked_json import shown
from lm_eval_clas.disk.files import put, put_text, sha256, writing
from lm_eval_clas.disk.tensors import Shapes, read_tensors
from lm_eval_clas.disk.written import claimed
from lm_eval_clas.languages.macrolanguages import known_language
from lm_eval_clas.masks.hub import HubOrigin, locate
from lm_eval_clas.masks.mask_config import (
    MASKS_CONFIG_FILE,
    REMEDY,
    CorpusSource,
    MaskConfig,
    ModelSource,
    SpecificSource,
    read_config,
)
from lm_eval_clas.masks.mask_place import MASKS_FILE, MASKS_FILES, PROFILE_FILE, RESIDUAL_FILE, require_masks_place
from lm_eval_clas.masks.residual_means import ResidualMeans, residual_of
from lm_eval_clas.masks.strengths import CLAS
from lm_eval_clas.neurons.bridge import select_bridge_layers
from lm_eval_clas.neurons.categories import (
    ALL,
    DEAD,
    MIN_TOKENS,
    PARTIAL,
    SPECIFIC,
    NeuronCategorizer,
    categorize,
    measured_neurons,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lm_eval_clas.masks.strengths import Tuned
    from lm_eval_clas.neurons.profile_folder import Profile
    from lm_eval_clas.neurons.residual_folder import ResidualProfile


@dataclass(frozen=True)
class MaskSet:
    """Active neurons by language, with everything that is known of where they came from.

    Attributes:
        config: the contents of `clas_config.json`.
        active: bool [languages, layers, neurons], in the order of `languages`.
        means: float32 [languages, layers, neurons], the statistic the masks came from, where it was kept.
        owned: bool [languages, layers, neurons], each language's specific neurons, where another source than counts of
            languages says so (`config.specific`); None where counts do.
        routed: of a mixture of experts: int64 [languages, layers, units], how many tokens each expert saw.
        residual: what leaves the layers, where it was put in.
        origin: the Hub repository and commit they were loaded from; None for a folder.
    """

    config: MaskConfig
    active: NDArray[np.bool_]
    means: NDArray[np.float32] | None = None
    owned: NDArray[np.bool_] | None = None
    routed: NDArray[np.int64] | None = None
    residual: ResidualMeans | None = None
    origin: HubOrigin | None = None

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

    @property
    def counted(self) -> tuple[str, ...]:
        """The languages that categories are counted over: those of the parallel texts, without added ones."""
        return tuple(language for language in self.languages if language not in self.config.added)

    @cached_property
    def categories(self) -> NDArray[np.uint8]:
        """uint8 [layers, neurons]: 0 dead, 1 language-specific, 2 partial-shared, 3 all-shared, over `counted`.

        Beside these, 4 is unmeasured, and 5 no neuron, in a layer that is narrower than the widest.
        """
        return categorize(self._of_counted(self.active), self.measured, self.config.model.fingerprint.exists)

    @cached_property
    def measured(self) -> NDArray[np.bool_] | None:
        """Of a mixture of experts: bool [layers, neurons], whose expert saw enough tokens in every counted language.

        The others are active nowhere, have no category, and are never steered. None where all tokens take the same way.
        """
        layout = self.config.model.fingerprint.layout
        if self.routed is None or layout is None:
            return None
        return measured_neurons(self._of_counted(self.routed), self.config.min_tokens or MIN_TOKENS, layout)

    @cached_property
    def steerable(self) -> NDArray[np.bool_]:
        """bool [layers, neurons]: where there are neurons, and they were measured."""
        return self.categories <= ALL

    @cached_property
    def specific(self) -> NDArray[np.bool_]:
        """bool [layers, neurons]: neurons specific to any of the counted languages."""
        if self.owned is None:
            return np.equal(self.categories, SPECIFIC)
        some: NDArray[np.bool_] = np.logical_or.reduce(self._of_counted(self.owned))
        return some

    @cached_property
    def partial(self) -> NDArray[np.bool_]:
        """bool [layers, neurons]: partial-shared neurons. One that another source calls specific is specific only."""
        return np.equal(self.categories, PARTIAL) & ~self.specific

    def specific_in(self, language: str) -> NDArray[np.bool_]:
        """bool [layers, neurons]: the language's own specific neurons.

        By counts, those that are active in it and in no other counted language. For an added language that is: active in
        it and dead in all counted ones, so that adding one changes nothing for the others.
        """
        if self.owned is not None:
            own: NDArray[np.bool_] = self.owned[self.index(language)]
            return own
        category = DEAD if self.code_of(language) in self.config.added else SPECIFIC
        return self.active_in(language) & np.equal(self.categories, category)

    @cached_property
    def hash(self) -> str:
        """16 hex digits over what decides the steering: active and specific neurons, languages, anchor, bridge layers, site."""
        decides = [self.config.languages, self.anchor, self.config.bridge_layers, list(self.active.shape)]
        content = json.dumps(decides).encode() + np.packbits(self.active, axis=-1).tobytes()
        # What came later than the first folders enters only where it is used, so that their hashes hold.
        if self.owned is not None:
            content += b"specific" + np.packbits(self.owned, axis=-1).tobytes()
        if self.measured is not None:
            content += b"measured" + np.packbits(self.measured, axis=-1).tobytes()
        if self.config.model.fingerprint.holds is not None:
            content += b"holds" + json.dumps(self.config.model.fingerprint.holds).encode()
        if self.config.site != "mlp":
            content += json.dumps([self.config.site, self.config.by]).encode()
        if self.config.added:
            content += b"added" + json.dumps(sorted(self.config.added)).encode()
        return hashlib.sha256(content).hexdigest()[:16]

    @cached_property
    def means_hash(self) -> str | None:
        """16 hex digits over the means, which decide methods that move neurons; None where they were not kept."""
        return None if self.means is None else hashlib.sha256(self.means.tobytes()).hexdigest()[:16]

    @property
    def residual_hash(self) -> str | None:
        """16 hex digits over what leaves the layers, which decides methods that act there; None where it is not there."""
        return None if self.residual is None else self.residual.hash

    def _of_counted(self, by_language: NDArray[Scalar]) -> NDArray[Scalar]:
        return by_language[[self.index(one) for one in self.counted]] if self.config.added else by_language

    def code_of(self, language: str) -> str:
        """The masks' own code of a language that is given by code or name: `quy` for `qu`, if no other language fits.

        Raises:
            ClasError: the masks do not have it.
        """
        code = known_language(language, self.languages)
        if code not in self.languages:
            raise ClasError(
                f"The masks have no language '{shown(language)}'{did_you_mean(language, self.languages)}, only "
                f"{', '.join(self.languages)}; profile it or use another."
            )
        return code

    def index(self, language: str) -> int:
        """The position of a language, as `code_of` takes it.

        Raises:
            ClasError: the masks do not have it.
        """
        return self.languages.index(self.code_of(language))

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
            bridge: `auto`; or layers, counted from 0: a range like `24-29` (both included), one number, or several.
            exclude_last: for `auto`, how many of the last layers to leave out.
            keep_means: whether the means go into the folder too.

        Raises:
            ClasError: the anchor was not profiled, or no bridge layer can be chosen.
        """
        categorizer = categorizer or NeuronCategorizer()
        anchor = known_language(anchor, profile.languages)
        if anchor not in profile.languages:
            raise ClasError(f"The anchor '{anchor}' was not profiled ({', '.join(profile.languages)} were); give another.")
        active = categorizer.active(profile)
        choice = select_bridge_layers(categorizer.categories(profile), bridge, exclude_last)
        routed = profile.tokens_seen(categorizer.tokens)
        source = profile.config
        config = MaskConfig(
            model=ModelSource(name=source.model, revision=source.revision, fingerprint=source.fingerprint),
            languages=list(profile.languages),
            anchor=anchor,
            site=profile.site,
            by=categorizer.by,
            projection=source.projection,
            statistic=categorizer.statistic,
            tokens=categorizer.tokens,
            first_token=source.first_token,
            threshold=categorizer.threshold,
            min_tokens=None if routed is None else categorizer.min_tokens,
            corpus=CorpusSource.of(
                source, {one: profile.by_language[one].counts[categorizer.tokens] for one in profile.languages}
            ),
            bridge_layers=list(choice.layers),
            bridge_rule=choice.why,
        )
        means = profile.mean(categorizer.statistic, categorizer.tokens) if keep_means else None
        return cls(config, active, means, routed=routed)

    def with_instance_shares(self, shares: NDArray[np.float64]) -> MaskSet:
        """The same masks with per-input category shares, float64 [layers, 4], noted in the configuration."""
        rounded = [[round(float(value), 6) for value in row] for row in shares]
        return replace(self, config=self.config.model_copy(update={"instance_shares": rounded}))

    def with_strengths(self, beta: float, gamma: float) -> MaskSet:
        """The same masks with other amplification and damping."""
        return replace(self, config=self.config.model_copy(update={"beta": beta, "gamma": gamma}))

    def with_specific(self, owned: NDArray[np.bool_], source: SpecificSource) -> MaskSet:
        """The same masks with specific neurons of another source, bool [languages, layers, neurons], of those to be steered."""
        return replace(self, owned=owned & self.steerable, config=self.config.model_copy(update={"specific": source}))

    def with_residual(self, profile: ResidualProfile) -> MaskSet:
        """The same masks with what leaves the layers, for methods that act there.

        Raises:
            ClasError: the profile is of another model or other texts.
        """
        residual, source = residual_of(profile, self.config)
        return replace(self, residual=residual, config=self.config.model_copy(update={"residual": source}))

    def with_tuned(self, tuned: Tuned, method: str = CLAS) -> MaskSet:
        """The same masks with strengths tuned for a method; those of other methods, tasks and languages stay."""
        before = self.config.tuned_of(method)
        both = {family: {**before.get(family, {}), **tuned.get(family, {})} for family in before | tuned}
        update = {"tuned": both} if method == CLAS else {"tuned_methods": {**self.config.tuned_methods, method: both}}
        return replace(self, config=self.config.model_copy(update=update))

    def save(self, folder: str | Path, force: bool = False) -> Path:
        """Writes the folder, each file whole or not at all; the configuration last, since it vouches for the others.

        Args:
            folder: is made, or holds masks that are replaced. Other files in it stay as they are.
            force: replaces files of these names that are no masks.

        Raises:
            ClasError: such a file is there and is not ours, or the folder cannot be written.
        """
        folder = Path(folder)
        strange = require_masks_place(folder, force)
        tensors: dict[str, dict[str, NDArray[Any]]] = {MASKS_FILE: {"active": np.packbits(self.active, axis=-1)}}
        if self.owned is not None:
            tensors[MASKS_FILE]["specific"] = np.packbits(self.owned, axis=-1)
        if self.routed is not None:
            tensors[MASKS_FILE]["routed"] = self.routed
        if self.means is not None:
            tokens = self.config.corpus.tokens | {one: text.tokens for one, text in self.config.added.items()}
            counts = [tokens.get(language, 0) for language in self.languages]
            tensors[PROFILE_FILE] = {"means": self.means, "counts": np.array(counts, dtype=np.int64)}
        if self.residual is not None:
            tensors[RESIDUAL_FILE] = self.residual.tensors
        # Files that no record knows were looked at above.
        with claimed(folder, MASKS_FILES, force=True):
            with ExitStack() as every:
                # Each gets its name when all are written, in reverse order: a full disk leaves the masks that were there.
                config_file = every.enter_context(writing(folder / MASKS_CONFIG_FILE))
                files = {}
                for name, content in tensors.items():
                    temporary = every.enter_context(writing(folder / name))
                    put(temporary, save(content))
                    files[name] = sha256(temporary)
                config = self.config.model_copy(update={"files": files})
                text = json.dumps(config.model_dump(), indent=2, ensure_ascii=False) + "\n"
                put_text(config_file, text)
            for name in (PROFILE_FILE, RESIDUAL_FILE):
                if name not in tensors and folder / name not in strange:
                    (folder / name).unlink(missing_ok=True)
        return folder

    @classmethod
    def load(cls, source: str | Path) -> MaskSet:
        """Loads masks from a folder, by the name of a shipped folder, or from a Hub repository `user/name[@revision]`.

        Raises:
            ClasError: there is no such folder, or it is damaged, changed by hand, or of a newer format.
        """
        folder, origin = locate(source)
        config = read_config(folder)
        fingerprint = config.model.fingerprint
        shape = (len(config.languages), fingerprint.layers, fingerprint.neurons)
        names = ["active"] if config.specific.source == "counts" else ["active", "specific"]
        bits = ("uint8", (*shape[:2], -(-shape[2] // 8)))
        expected_bits: Shapes = dict.fromkeys(names, bits)
        layout = fingerprint.layout
        of_experts = config.min_tokens is not None and layout is not None
        if of_experts and layout is not None:
            expected_bits = {**expected_bits, "routed": ("int64", (*shape[:2], layout.units))}
        packed = _read(folder, MASKS_FILE, config, expected_bits)
        masks = {name: np.unpackbits(packed[name], axis=-1, count=shape[2]).astype(bool) for name in names}
        means = None
        if PROFILE_FILE in config.files:
            expected: Shapes = {"means": ("float32", shape), "counts": ("int64", shape[:1])}
            means = _read(folder, PROFILE_FILE, config, expected)["means"]
        residual = None
        if config.residual is not None:
            expected = ResidualMeans.shapes(config.residual, fingerprint)
            residual = ResidualMeans.read(config.residual, _read(folder, RESIDUAL_FILE, config, expected))
        return cls(config, masks["active"], means, masks.get("specific"), packed.get("routed"), residual, origin)


def _read(folder: Path, name: str, config: MaskConfig, expected: Shapes) -> dict[str, NDArray[Any]]:
    try:
        found = read_tensors(folder / name, expected, config.files.get(name, "none"))
        if any(not np.isfinite(tensor).all() for tensor in found.values()):
            raise ValueError("it holds numbers that are not finite")
    except ValueError as error:
        raise ClasError(f"'{folder / name}' is damaged ({error}); {REMEDY}") from error
    return found
