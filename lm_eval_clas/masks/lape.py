"""LAPE: language-specific neurons by the entropy of their activity over languages (Tang et al. 2024, arXiv 2402.16438).

A second source of the language-specific mask, beside counting languages: from a profile, or from the `.neuron.pth` files
that the authors publish. The probability that a neuron is positive is ours to take from the profile: the share of tokens
with h > 0, where h = act(gate) * up is the input of the down-projection. Theirs is the share with act(gate) > 0, so the two
selections are akin and not the same (in MLPs without a gate, such as OPT's and BLOOM's, they are).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.disk.checked_files import user_path
from lm_eval_clas.disk.checked_json import shown
from lm_eval_clas.disk.files import sha256
from lm_eval_clas.languages.language_names import parse_language
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.masks.mask_config import SpecificSource

if TYPE_CHECKING:
    from lm_eval_clas.masks.mask_set import MaskSet
    from lm_eval_clas.neurons.profile_folder import Profile


@dataclass(frozen=True)
class LapeSelection:
    """What LAPE selects.

    Attributes:
        owned: bool [languages, layers, neurons]: the neurons of each language; one neuron may have several.
        bar: the probability that was to be exceeded, a share.
    """

    owned: NDArray[np.bool_]
    bar: float


@dataclass(frozen=True)
class LapeSelector:
    """The rule of the paper, with its two thresholds.

    1. The bar is a percentile of all probabilities, over all neurons and languages together. Neurons that are above it in
       no language are dropped: they are positive so rarely that their entropy says nothing.
    2. Of all neurons of the model, the `top` share with the lowest entropy over languages is kept, if it was not dropped.
    3. A language owns those in which its probability is above the bar.

    Attributes:
        top: share of all neurons; 0.01 in the paper (the released script has 0.05 for its largest model).
        percentile: as a share; 0.95 in the paper, for both uses of the bar.
    """

    top: float = 0.01
    percentile: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.top <= 1:
            raise ClasError(f"--lape-top must be a share above 0 and up to 1, like 0.01, not {self.top}.")
        if not 0 < self.percentile < 1:
            raise ClasError(f"--lape-percentile must be a share between 0 and 1, like 0.95, not {self.percentile}.")

    def select(self, probabilities: NDArray[np.floating[Any]], there: NDArray[np.bool_] | None = None) -> LapeSelection:
        """Selects from probabilities in 0..1, [languages, layers, neurons], of neurons that are `there`.

        Of neurons with equal entropies, the first ones in the order of layers come first.

        Raises:
            ClasError: `top` is less than one neuron, or no neuron is left.
        """
        there = np.ones(probabilities.shape[1:], dtype=bool) if there is None else there
        known = probabilities[:, there]
        place = max(1, round(known.size * self.percentile)) - 1
        bar = float(np.partition(known, place, axis=None)[place])
        above = (probabilities > bar) & there
        each = np.where(above.any(axis=0), entropy(probabilities), np.inf).ravel()
        neurons = np.count_nonzero(there)
        count = round(self.top * neurons)
        if count < 1:
            raise ClasError(f"--lape-top {self.top:g} keeps none of {neurons:,} neurons; give a larger share.")
        kept = np.zeros(each.size, dtype=bool)
        kept[np.argsort(each, kind="stable")[:count]] = True
        owned = above & kept.reshape(probabilities.shape[1:])  # those that were dropped are above the bar nowhere
        if not owned.any():
            raise ClasError("LAPE finds no language-specific neuron in this profile; lower --lape-percentile.")
        return LapeSelection(owned, bar)


def entropy(probabilities: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The entropy over languages of each neuron's probabilities, scaled to sum 1, in nats: float64 [layers, neurons].

    0 where one language has it all, log(languages) where all are alike; 0 also for neurons that are never positive.
    """
    wide = probabilities.astype(np.float64)
    total = wide.sum(axis=0)
    share = np.divide(wide, total, out=np.zeros_like(wide), where=total > 0)
    logarithm = np.log(share, out=np.zeros_like(share), where=share > 0)
    result: NDArray[np.float64] = -(share * logarithm).sum(axis=0)
    return result


def with_lape(masks: MaskSet, profile: Profile, selector: LapeSelector | None = None) -> MaskSet:
    """The same masks with LAPE's language-specific neurons, over the tokens that the masks were made from.

    Args:
        masks: made from the profile.
        profile: its share of positive activations is the probability.
        selector: the thresholds; default: the paper's.
    """
    selector = selector or LapeSelector()
    # By head, a head is one unit: it is kept or dropped as a whole, and counts as one.
    fingerprint = masks.config.model.fingerprint
    by_head = masks.config.by == "head"
    units = profile.units("share-positive", masks.config.tokens, masks.config.by)
    there = fingerprint.pool(masks.steerable[None].astype(np.float32))[0] > 0 if by_head else masks.steerable
    selection = selector.select(units, there)
    source = SpecificSource(source="lape", top=selector.top, percentile=selector.percentile, bar=selection.bar)
    return masks.with_specific(fingerprint.spread(selection.owned, by_head), source)


def with_neuron_file(masks: MaskSet, path: str | Path, languages: Sequence[str]) -> MaskSet:
    """The same masks with the language-specific neurons of a published `.neuron.pth` file.

    Languages of the file that the masks do not have are left out; those of the masks that the file does not have get no
    specific neurons. Neurons that were not measured are left out, too.

    Args:
        masks: of the model that the file is for.
        path: the file.
        languages: codes of its lists, in their order; theirs is en, zh, fr, es, vi, id, ja.

    Raises:
        ClasError: the file is not such a file, does not fit the model or the languages, or has none of the masks' languages.
    """
    path = user_path(path)
    if masks.config.site != "mlp":
        raise ClasError(
            f"'{path}' lists MLP neurons, and these masks are of attention; drop --specific, or profile --site mlp."
        )
    if not path.is_file():
        raise ClasError(f"There is no file '{path}'; --specific takes counts, lape, or a file of neurons by language.")
    codes = [parse_language(language) for language in languages]
    if not codes or None in codes or len(set(codes)) < len(codes):
        given = ",".join(languages)
        raise ClasError(f"--specific-languages must name the language of each list, like en,zh,fr, each once; not '{given}'.")
    widths = masks.config.model.fingerprint.widths
    lists = dict(zip(map(str, codes), read_neuron_file(path, len(codes), widths), strict=True))
    # A list of Arabic is that of Egyptian Arabic, too, if the file has no nearer one.
    found = {one: lists[code] for one in masks.languages if (code := as_known(one, lists)) in lists}
    if not found:
        raise ClasError(
            f"'{path}' has neurons of {', '.join(languages)}, none of which is among the masks' {', '.join(masks.languages)}."
        )
    owned = np.zeros(masks.active.shape, dtype=bool)
    for one, own in found.items():
        owned[masks.index(one)] = own
    return masks.with_specific(owned, SpecificSource(source="file", file=path.name, sha256=sha256(path)))


def read_neuron_file(path: Path, languages: int, widths: Sequence[int]) -> NDArray[np.bool_]:
    """Reads a list over languages of lists over layers of neurons' numbers: bool [languages, layers, neurons].

    Only tensors and lists are read (`torch.load(weights_only=True)`); a pickle of anything else is refused unopened.

    Args:
        path: the file.
        languages: how many it must have.
        widths: how many neurons each layer of the model has.

    Raises:
        ClasError: it cannot be read, or is not of this form and size.
    """
    import torch

    try:
        # Files from before PyTorch 1.6 are bare pickles, which are not opened at all.
        found = torch.load(path, map_location="cpu", weights_only=True) if zipfile.is_zipfile(path) else None
    except Exception as error:  # damaged and malicious files make torch raise every kind
        reason = shown(first_line(error), 200)
        raise ClasError(
            f"'{path}' is damaged or holds more than lists of tensors, and was not loaded ({reason}); fetch it again."
        ) from error
    if not isinstance(found, list | tuple):
        raise ClasError(f"'{path}' must be a file of torch.save with a list over languages; it is not.")
    if len(found) != languages:
        raise ClasError(
            f"'{path}' has lists for {len(found)} languages, but --specific-languages names {languages}; name each list once, "
            "in order (the published scripts leave out languages at the end that have no neurons)."
        )
    layers = len(widths)
    result = np.zeros((languages, layers, max(widths)), dtype=bool)
    for number, by_layer in enumerate(found):
        if not isinstance(by_layer, list | tuple) or len(by_layer) != layers:
            have = f"{len(by_layer)} layers" if isinstance(by_layer, list | tuple) else "no list of layers"
            raise ClasError(
                f"'{path}', language {number}: has {have}, and the model has {layers} layers; is it for this model?"
            )
        for layer, numbers in enumerate(by_layer):
            where, neurons = f"'{path}', language {number}, layer {layer}", widths[layer]
            plain = isinstance(numbers, torch.Tensor) and numbers.layout == torch.strided
            if not plain or numbers.dtype != torch.int64 or numbers.ndim != 1:
                raise ClasError(f"{where}: must be a one-dimensional tensor of whole numbers (int64).")
            if len(numbers) and not neurons:
                raise ClasError(f"{where}: names neurons, and this layer of the model has none; is it for this model?")
            if len(numbers) > neurons or len(np.unique(numbers.numpy())) != len(numbers):
                raise ClasError(f"{where}: names a neuron twice.")
            if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < neurons:
                raise ClasError(f"{where}: names neurons outside 0-{neurons - 1}; is it for this model?")
            result[number, layer, numbers.numpy()] = True
    return result
