"""Do two profiles tell the same story? Bridge layers and categories of neurons, against chance and against two halves."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.evidence.overlap_by_chance import jaccard, jaccard_by_chance, kappa
from lm_eval_clas.neurons.agreement import Agreement, Stability
from lm_eval_clas.neurons.bridge import select_bridge_layers
from lm_eval_clas.neurons.categories import ALL, CATEGORIES, NeuronCategorizer
from lm_eval_clas.neurons.profile_folder import Profile
from lm_eval_clas.texts.corpora import split_half

Categories = NDArray[np.uint8]  # [layers, neurons]


def compare_profiles(
    a: Profile,
    b: Profile,
    ceiling: tuple[Profile, Profile] | None = None,
    *,
    categorizer: NeuronCategorizer | None = None,
    bridge: str | int | Sequence[int] = "auto",
    exclude_last: int = 2,
) -> Stability:
    """Compares the masks that two profiles of one model give, on the languages that both have.

    Args:
        a, b: the profiles, usually of two corpora.
        ceiling: profiles of two halves of one corpus: how far agreement can go where only the sample differs. Halves have
            half the texts, so that this ceiling is low, and `--half` puts neighbouring items, which may share a passage,
            into different halves, which makes it high.
        categorizer: when a neuron counts as active; default: signed mean over all tokens above 0.
        bridge, exclude_last: as in `MaskSet.from_profile`.

    Raises:
        ClasError: the profiles are of different models, or one of them alone counts first positions; they have fewer than two
            languages in common; or the ceiling is none: not the two halves of one corpus, or the compared pair itself.
    """
    categorizer = categorizer or NeuronCategorizer()
    languages = [one for one in a.languages if one in b.languages]
    if len(languages) < 2:
        raise ClasError(
            f"The profiles have {len(languages)} languages in common ({', '.join(a.languages)}; {', '.join(b.languages)}), and "
            "categories need two; profile the same languages on both corpora."
        )
    for other in (b, *(ceiling or ())):
        if a.config.site != other.config.site:
            raise ClasError(f"One profile is of site {a.config.site}, another of {other.config.site}; profile the same site.")
        if a.config.first_token != other.config.first_token:
            raise ClasError(
                "One profile counts the first position of every text, and another does not, which changes means by itself; "
                "profile both with the same --first-token."
            )
        a.config.fingerprint.require(other.config.fingerprint, f"The profile of '{a.config.corpus}'")
        if missing := [language for language in languages if language not in other.languages]:
            raise ClasError(
                f"The profile of '{other.config.corpus}' lacks {', '.join(missing)}, which the others have; profile the "
                "halves in the same languages."
            )
    if ceiling is not None:
        _require_halves(ceiling, (a, b))
    categories = [_categories(profile, languages, categorizer) for profile in (a, b)]
    bridges = [select_bridge_layers(one, bridge, exclude_last).layers for one in categories]
    either = sorted({layer for layers in bridges for layer in layers})
    halves = [_categories(profile, languages, categorizer) for profile in ceiling or ()]
    return Stability(
        a=_name(a),
        b=_name(b),
        languages=languages,
        bridge_a=list(bridges[0]),
        bridge_b=list(bridges[1]),
        agreements=agreements(categories[0], categories[1], either),
        ceiling_of=" / ".join(map(_name, ceiling)) if ceiling else None,
        ceiling=agreements(halves[0], halves[1], either) if ceiling else [],
    )


def agreements(a: Categories, b: Categories, bridge: Sequence[int]) -> list[Agreement]:
    """How far two sets of categories, uint8 [layers, neurons], agree: the bridge layers together, then layer by layer."""
    rows: list[tuple[int | None, Categories, Categories]] = [(None, a[list(bridge)].ravel(), b[list(bridge)].ravel())]
    rows += [(layer, a[layer], b[layer]) for layer in range(len(a))]
    found = []
    for layer, *both in rows:
        one, other = (categories[(both[0] <= ALL) & (both[1] <= ALL)] for categories in both)  # what was measured twice
        for number, category in enumerate(CATEGORIES):
            in_one, in_other = one == number, other == number
            found.append(
                Agreement(
                    layer=layer,
                    category=category,
                    jaccard=jaccard(in_one, in_other),
                    jaccard_chance=jaccard_by_chance(int(in_one.sum()), int(in_other.sum()), len(one)),
                    kappa=kappa(in_one, in_other),
                )
            )
        found.append(Agreement(layer=layer, category="any", kappa=kappa(one, other)))
    return found


def _require_halves(ceiling: tuple[Profile, Profile], compared: tuple[Profile, Profile]) -> None:
    """Refuses what is no ceiling: its halves have no text in common, and differ in nothing else."""
    first, second = (one.config for one in ceiling)
    (corpus, half), (other, other_half) = split_half(first.corpus), split_half(second.corpus)
    who = f"'{_name(ceiling[0])}' and '{_name(ceiling[1])}'"
    if {half, other_half} != {"first", "second"} or corpus != other or abs(first.samples - second.samples) > 1:
        raise ClasError(
            f"A ceiling is of the two halves of one corpus, and these are {who}; profile them with 'clas profile --half first' "
            "and '--half second', and all else alike."
        )
    for name in ("model", "revision", "projection", "max_tokens"):
        if getattr(first, name) != getattr(second, name):
            raise ClasError(
                f"The halves {who} differ in {name} ({getattr(first, name)} and {getattr(second, name)}), so that they are no "
                "ceiling; profile both alike."
            )
    if {first.corpus_sha256, second.corpus_sha256} == {one.config.corpus_sha256 for one in compared}:
        raise ClasError(f"The ceiling {who} is the compared pair itself; give the halves of one corpus, and compare others.")


def _categories(profile: Profile, languages: Sequence[str], categorizer: NeuronCategorizer) -> Categories:
    """Categories counted over these languages only."""
    return categorizer.categories(profile, languages)


def _name(profile: Profile) -> str:
    return f"{profile.config.corpus} ({profile.config.samples} items)"
