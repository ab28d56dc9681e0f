"""Categories input by input: for one item in all languages at once, which neurons are shared (Wang et al. 2024).

arXiv 2406.09265 assigns dead, specific, partial-shared and all-shared for each input and reports the share of inputs. The
languages of an item therefore run side by side in one batch, and only counts are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.base.processes import Processes
from lm_eval_clas.decoder.below_head import decoder_of
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.mixtures.expert_products import Routed
from lm_eval_clas.decoder.projections import Projection, Site, find_projections, reading
from lm_eval_clas.decoder.text_batches import Batch, device_of, position_limit, text_batches
from lm_eval_clas.disk.tensors import read_tensors, write_tensors
from lm_eval_clas.disk.written import claimed
from lm_eval_clas.neurons.activity import TOKENS, FirstToken, Tokens
from lm_eval_clas.neurons.categories import CATEGORIES, categorize, category_shares
from lm_eval_clas.neurons.profile_folder import ProfileConfig, config_of, load_config, take_folder
from lm_eval_clas.texts.corpora import ParallelTexts

FILE = "instances.safetensors"


def profile_instances(
    model: nn.Module,
    tokenizer: Any,
    texts: ParallelTexts,
    out: str | Path | None = None,
    *,
    name: str | None = None,
    batch_size: int = 8,
    max_tokens: int = 2048,
    first_token: FirstToken = "skip",
    site: Site = "mlp",
    projection: str | None = None,
    model_args: str = "",
    report: Callable[[int], None] | None = None,
    processes: Processes | None = None,
) -> dict[Tokens, NDArray[np.float64]]:
    """Counts categories input by input.

    A neuron is active for one input when its activation is above 0: the signed mean over the input's real tokens, or its
    last token.

    Args:
        out: as in `profile`, of which it may be the folder. Shares that are there, of the same inputs, are not counted again.
        name: what to call the model; default: as the profile in `out` does, or as it calls itself.
        first_token, model_args: as in `profile`.
        processes: as in `profile`; every one runs its share of the items.

    Returns:
        By tokens (`all`, `last`), float64 [layers, 4]: the share of each category among all neurons of the layer, averaged
        over inputs. Also written to `instances.safetensors` in `out`.

    Raises:
        ClasError: as in `profile`; or `out` has shares, and nothing that tells of what.
    """
    processes = processes or Processes()
    folder = None if out is None else Path(out)
    projections = find_projections(model, site, projection)
    if any(one.experts for one in projections):
        raise ClasError(
            "One input's tokens reach some of the experts only, so there are no categories input by input of a mixture of "
            "experts; drop --level instance, or profile attention with --site attn."
        )
    max_tokens = min(max_tokens, position_limit(model))
    options: dict[str, Any] = {"site": site, "projection": projection, "max_tokens": max_tokens, "first_token": first_token}
    if name is None and folder is not None and (there := processes.from_main(lambda: load_config(folder))) is not None:
        name = there.model
    config = config_of(model, projections, texts, model_args, name=name, **options)
    with claimed(folder) if folder is not None and processes.main else nullcontext():
        if folder is not None and (finished := processes.from_main(lambda: _counted(folder, config))) is not None:
            return finished
        shares = _count(model, tokenizer, texts, projections, batch_size, max_tokens, first_token, report, processes)
        if folder is not None and processes.main:
            write_tensors(folder / FILE, {str(tokens): one for tokens, one in shares.items()})
    return shares


def _counted(folder: Path, config: ProfileConfig) -> dict[Tokens, NDArray[np.float64]] | None:
    """Takes the folder; the shares that are there, of the same inputs, or None."""
    there = (folder / FILE).is_file()
    if there and load_config(folder) is None:
        raise ClasError(f"'{folder / FILE}' does not tell what it was made from; delete it, or choose another --out.")
    take_folder(folder, config)
    return _load(folder / FILE, config.fingerprint.layers) if there else None


def _count(
    model: nn.Module,
    tokenizer: Any,
    texts: ParallelTexts,
    projections: list[Projection],
    batch_size: int,
    max_tokens: int,
    first_token: FirstToken,
    report: Callable[[int], None] | None,
    processes: Processes,
) -> dict[Tokens, NDArray[np.float64]]:
    fingerprint = ModelFingerprint.of(model, projections)
    totals = {tokens: np.zeros((fingerprint.layers, len(CATEGORIES))) for tokens in TOKENS}
    for done, number in enumerate(processes.share(range(len(texts.ids))), start=1):
        lines = [texts.texts[language][number] for language in texts.languages]
        active: dict[Tokens, list[NDArray[np.bool_]]] = {tokens: [] for tokens in TOKENS}
        # One item in many languages may not fit into one pass: its parts are put together again.
        for batch in text_batches(
            tokenizer, lines, batch_size, max_tokens, device_of(model), sort=False, skip_first=first_token == "skip"
        ):
            for tokens, part in _active(model, projections, fingerprint, batch).items():
                active[tokens].append(part)
        for tokens, parts in active.items():
            totals[tokens] += category_shares(categorize(np.concatenate(parts), exists=fingerprint.exists))
        if report is not None:
            report(min(done * processes.size, len(texts.ids)))
    return {tokens: processes.sum(total) / len(texts.ids) for tokens, total in totals.items()}


def load_instance_shares(folder: Path, statistic: str, tokens: Tokens, threshold: float) -> NDArray[np.float64]:
    """The shares that `clas profile --level instance` counted, float64 [layers, 4].

    Raises:
        ClasError: it was not run, or counted with another statistic or threshold.
    """
    if statistic != "signed-mean" or threshold != 0:
        raise ClasError("--level instance knows the signed mean with threshold 0 only; drop --statistic and --threshold.")
    config = load_config(folder)
    if config is None or not (folder / FILE).is_file():
        raise ClasError(f"'{folder}' was not profiled input by input; run 'clas profile ... --level instance' first.")
    return _load(folder / FILE, config.fingerprint.layers)[tokens]


def _load(path: Path, layers: int) -> dict[Tokens, NDArray[np.float64]]:
    try:
        found = read_tensors(path, dict.fromkeys(TOKENS, ("float64", (layers, len(CATEGORIES)))))
    except ValueError as error:
        raise ClasError(
            f"'{path}' is damaged ({error}); run 'clas profile --level instance' again into another folder."
        ) from error
    return {tokens: found[tokens] for tokens in TOKENS}


def _active(
    model: nn.Module, projections: list[Projection], fingerprint: ModelFingerprint, batch: Batch
) -> dict[Tokens, NDArray[np.bool_]]:
    """bool [texts, layers, neurons] by tokens, from one pass."""
    shape = (len(batch.last), fingerprint.layers, fingerprint.neurons)
    active: dict[Tokens, NDArray[np.bool_]] = {tokens: np.zeros(shape, dtype=bool) for tokens in TOKENS}

    def read(place: int, h: torch.Tensor | Routed) -> None:
        assert isinstance(h, torch.Tensor)
        at = (slice(None), projections[place].layer, projections[place].here)
        real, last = batch.real.to(h.device), batch.last.to(h.device)
        h = h.view(*real.shape, -1)
        active["all"][at] = (torch.where(real[..., None] > 0, h.float(), 0.0).sum(1) > 0).cpu().numpy()
        active["last"][at] = (h[torch.arange(len(h), device=h.device), last] > 0).cpu().numpy()

    with reading(projections, read) as passed, torch.inference_mode():
        decoder_of(model)(**batch.inputs, use_cache=False)
        passed()
    return active
