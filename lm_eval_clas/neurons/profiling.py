"""Streaming statistics of activations: what every neuron does, by language, over parallel texts."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from lm_eval_clas.base.processes import Processes
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.mixtures.expert_products import Routed
from lm_eval_clas.decoder.projections import Projection, Site, find_projections, layer_outputs
from lm_eval_clas.decoder.text_batches import device_of, position_limit, text_batches
from lm_eval_clas.disk.written import claimed
from lm_eval_clas.neurons.activity import STATISTICS, TOKENS, FirstToken, Tokens
from lm_eval_clas.neurons.hidden_statistics import HiddenStatistics
from lm_eval_clas.neurons.pass_statistics import PassStatistics, require_finite
from lm_eval_clas.neurons.profile_folder import (
    Profile,
    ProfileConfig,
    StoredProfile,
    Sums,
    config_of,
    load_config,
    take_folder,
)
from lm_eval_clas.neurons.residual_folder import ResidualProfile
from lm_eval_clas.texts.corpora import ParallelTexts

OfKind = TypeVar("OfKind", bound=StoredProfile[Any])
OnProgress = Callable[[str, int, int], None]  # language, texts done, texts in all


def profile(
    model: nn.Module,
    tokenizer: Any,
    texts: ParallelTexts,
    *,
    name: str | None = None,
    out: str | Path | None = None,
    batch_size: int = 8,
    max_tokens: int = 2048,
    first_token: FirstToken = "skip",
    site: Site = "mlp",
    projection: str | None = None,
    model_args: str = "",
    report: OnProgress | None = None,
    processes: Processes | None = None,
) -> Profile:
    """Profiles every neuron of a model at one site on parallel texts, one language after the other.

    Texts run through the decoder without its LM head, in batches sorted by length. For each neuron the sums of h, |h| and
    [h > 0] are taken over all real tokens and over each text's last one (in experts, over those that
    reached them); padding and special tokens (BOS) do not count, nor
    does the first position, unless `first_token` keeps it.
    Products and batch sums are float32 whatever the model's dtype, totals float64. Memory does not grow with the texts.

    Args:
        model: a Hugging Face decoder in evaluation mode.
        tokenizer: its tokenizer, with a padding token.
        texts: what to profile on.
        name: what to call the model in the profile; default: the name it was loaded by.
        out: a folder that gets each language as it is finished. Languages already there are not run again.
        batch_size: texts in a batch.
        max_tokens: longer texts are cut at the end; never more than the model has positions.
        first_token: `skip` leaves out the first position of every text. Where the tokenizer puts BOS there nothing changes;
            elsewhere the token that stands there is the attention sink, whose activations are like no other's.
        site: `mlp`, the input of each layer's down-projection; or `attn`, that of attention's output projection.
        projection: a pattern of module names, where the site's projections are not found by structure.
        model_args: what the harness loaded the model with: adapters that it names are part of what the profile is of.
        report: called with language, texts done and texts in all.
        processes: those that call this function together, each with a model of its own. Every one runs its share of the
            batches and gets the whole profile; the main one writes it. Default: this process alone.

    Raises:
        ClasError: the model has nothing recognisable at the site, a pass does not run each of its projections once, a text has
            no token that counts, or `out` holds a profile of something else, or a file that is not ours.
    """
    projections = find_projections(model, site, projection)
    config = _neurons_config(model, projections, texts, name, site, projection, max_tokens, first_token, model_args)

    def start() -> ActivationStatistics:
        return ActivationStatistics(projections, config.fingerprint)

    return _by_language(Profile, start, config, model, tokenizer, texts, out, batch_size, report, processes)


def finished_profile(
    model: nn.Module,
    texts: ParallelTexts,
    out: str | Path,
    *,
    name: str | None = None,
    max_tokens: int = 2048,
    first_token: FirstToken = "skip",
    site: Site = "mlp",
    projection: str | None = None,
    model_args: str = "",
) -> Profile | None:
    """What `profile` would return without running anything; None if any language is left to run, or `out` holds something else.

    Args:
        model: as in `profile`, but without weights, on torch's meta device, it will do.
        texts, out, name, max_tokens, first_token, site, projection, model_args: as in `profile`.

    Raises:
        ClasError: the model has nothing recognisable at the site, or the profile is damaged.
    """
    projections = find_projections(model, site, projection)
    config = _neurons_config(model, projections, texts, name, site, projection, max_tokens, first_token, model_args)
    return _finished(Profile, config, out)


def finished_residual(
    model: nn.Module,
    texts: ParallelTexts,
    out: str | Path,
    *,
    name: str | None = None,
    max_tokens: int = 2048,
    first_token: FirstToken = "skip",
    model_args: str = "",
) -> ResidualProfile | None:
    """What `profile_residual` would return without running anything, as `finished_profile`."""
    config = _residual_config(model, layer_outputs(model), texts, name, max_tokens, first_token, model_args)
    return _finished(ResidualProfile, config, out)


def _finished(kind: type[OfKind], config: ProfileConfig, out: str | Path) -> OfKind | None:
    """The profile in a folder, if it is of these inputs and has every language."""
    before = load_config(Path(out))
    if before is None or before.differences(config):
        return None
    found = kind.load(out)
    return found if found.languages == tuple(config.languages) else None


def _neurons_config(
    model: nn.Module,
    projections: list[Projection],
    texts: ParallelTexts,
    name: str | None,
    site: Site,
    projection: str | None,
    max_tokens: int,
    first_token: FirstToken,
    model_args: str,
) -> ProfileConfig:
    options: dict[str, Any] = {"max_tokens": min(max_tokens, position_limit(model)), "first_token": first_token}
    return config_of(model, projections, texts, model_args, name=name, site=site, projection=projection, **options)


def _residual_config(
    model: nn.Module,
    places: list[Projection],
    texts: ParallelTexts,
    name: str | None,
    max_tokens: int,
    first_token: FirstToken,
    model_args: str,
) -> ProfileConfig:
    options: dict[str, Any] = {"max_tokens": min(max_tokens, position_limit(model)), "first_token": first_token}
    return config_of(model, places, texts, model_args, name=name, site="residual", projection=None, **options)


def profile_residual(
    model: nn.Module,
    tokenizer: Any,
    texts: ParallelTexts,
    *,
    name: str | None = None,
    out: str | Path | None = None,
    batch_size: int = 8,
    max_tokens: int = 2048,
    first_token: FirstToken = "skip",
    model_args: str = "",
    report: OnProgress | None = None,
    processes: Processes | None = None,
) -> ResidualProfile:
    """Profiles what leaves each decoder layer, in the same way, for methods that act there and not on neurons.

    Of all tokens that count, hidden states and their lengths are summed; of each text, the mean is kept. Unlike transformers'
    `hidden_states`, the last layer's have not gone through the final normalisation, as nothing that is steered has.

    Args:
        model, tokenizer, texts, name, out, batch_size, max_tokens, first_token, model_args, report, processes: as in `profile`.

    Raises:
        ClasError: as in `profile`.
    """
    places = layer_outputs(model)
    config = _residual_config(model, places, texts, name, max_tokens, first_token, model_args)

    def start() -> HiddenStatistics:
        return HiddenStatistics(places, len(texts.ids))

    return _by_language(ResidualProfile, start, config, model, tokenizer, texts, out, batch_size, report, processes)


def _by_language(
    kind: type[OfKind],
    start: Callable[[], ActivationStatistics | HiddenStatistics],
    config: ProfileConfig,
    model: nn.Module,
    tokenizer: Any,
    texts: ParallelTexts,
    out: str | Path | None,
    batch_size: int,
    report: OnProgress | None,
    processes: Processes | None,
) -> OfKind:
    """One language after the other; those that are finished in `out` are not run again."""
    processes = processes or Processes()
    folder, skip = None if out is None else Path(out), config.first_token == "skip"
    with claimed(folder) if folder is not None and processes.main else nullcontext():
        finished: dict[str, Any] = {} if folder is None else processes.from_main(lambda: _resumed(kind, folder, config))
        for language, lines in texts.texts.items():
            if language not in finished:
                statistics = start()
                # The batches are those of a single process, so that only the order of the additions in float64 differs.
                every = text_batches(tokenizer, lines, batch_size, config.max_tokens, device_of(model), skip_first=skip)
                with statistics.reading():
                    for batch in islice(every, processes.rank, None, processes.size):
                        statistics.add(model, batch)
                        if report is not None:
                            report(language, min(statistics.texts * processes.size, len(lines)), len(lines))
                finished[language] = statistics.sums(processes)
                if folder is not None and processes.main:
                    kind.save_language(finished[language], folder, language)
            elif report is not None:
                report(language, len(lines), len(lines))
    return kind(config, finished)


class ActivationStatistics(PassStatistics):
    """Accumulates sums of h, |h| and [h > 0] at every projection's input, on the axes of a model's layers."""

    def __init__(self, projections: list[Projection], fingerprint: ModelFingerprint) -> None:
        super().__init__(projections)
        self._fingerprint = fingerprint
        # By projection: [tokens, statistics, neurons]; of experts [experts, tokens, statistics + 1, channels], the last of
        # which is how many tokens there were, in the first channel.
        self._totals: list[torch.Tensor | None] = [None] * len(projections)

    @property
    def _counts(self) -> dict[Tokens, int]:
        return {"all": self.tokens, "last": self.texts}

    def sums(self, processes: Processes | None = None) -> Sums:
        """The totals so far, of all `processes` together.

        Raises:
            ClasError: an activation was infinite.
        """
        processes = processes or Processes()
        size, layout = self._fingerprint, self._fingerprint.layout
        experts = any(one.experts for one in self._places)
        stacked = np.zeros((size.layers, len(TOKENS), len(STATISTICS), size.neurons))
        routed = np.zeros((len(TOKENS), size.layers, layout.units if layout is not None else 1))
        for place, total in zip(self._places, self._totals, strict=True):
            if total is None:  # a process that had no batch adds nothing
                continue
            numbers = total.double().cpu().numpy()
            before = sum(one.experts or 1 for one in self._places if one.layer == place.layer and one.start < place.start)
            if place.experts:
                routed[:, place.layer, before : before + place.experts] = numbers[:, :, -1, 0].T
                numbers = numbers[:, :, :-1].transpose(1, 2, 0, 3).reshape(len(TOKENS), len(STATISTICS), -1)
            else:
                routed[:, place.layer, before] = list(self._counts.values())
            stacked[place.layer, :, :, place.here] = numbers
        stacked = processes.sum(stacked)  # [layers, tokens, statistics, neurons]
        routed = processes.sum(routed)
        counts = processes.sum(np.array(list(self._counts.values()), dtype=np.float64))
        require_finite(stacked)
        return Sums(
            {
                (tokens, statistic): np.ascontiguousarray(stacked[:, i, j], dtype=np.float32 if experts else np.float64)
                for i, tokens in enumerate(TOKENS)
                for j, statistic in enumerate(STATISTICS)
            },
            {tokens: int(count) for tokens, count in zip(self._counts, counts, strict=True)},
            dict(zip(TOKENS, routed.astype(np.int64), strict=True)) if experts else None,
        )

    def _read(self, place: int, h: torch.Tensor | Routed) -> None:
        assert self._batch is not None
        if isinstance(h, Routed):
            experts = self._places[place].experts
            assert experts is not None
            sums = routed_statistics(h, self._batch.real.to(h.h.device), self._batch.last.to(h.h.device), experts)
        else:
            sums = batch_statistics(h, self._batch.real.to(h.device), self._batch.last.to(h.device))
        # MPS has no float64; there, totals stay float32.
        sums = sums if sums.device.type == "mps" else sums.double()
        total = self._totals[place]
        self._totals[place] = sums if total is None else total.add_(sums)


def batch_statistics(h: torch.Tensor, real: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """Sums over one batch of activations, float32 [tokens, statistics, neurons] in the order of TOKENS and STATISTICS.

    Args:
        h: [batch, tokens, neurons], any floating dtype; also [batch x tokens, neurons], as OPT has it.
        real: float32 [batch, tokens], 1 on the tokens that count.
        last: int64 [batch], the position of each text's last real token.
    """
    h = h.view(*real.shape, -1)
    final = h[torch.arange(len(h), device=h.device), last].float()
    weights = real.flatten()
    # Not by the weights alone: in float16, sinks and padding may overflow, and infinity times zero is not zero.
    flat = torch.where(weights[:, None] > 0, h.flatten(0, 1).float(), 0.0)
    return torch.stack(
        [
            # The last one overwrites `flat`, a copy that nobody reads again: fresh memory costs more here than the sums.
            torch.stack([weights @ flat, weights @ flat.abs(), weights @ flat.gt_(0)]),
            torch.stack([final.sum(0), final.abs().sum(0), (final > 0).float().sum(0)]),
        ]
    )


def routed_statistics(routed: Routed, real: torch.Tensor, last: torch.Tensor, experts: int) -> torch.Tensor:
    """The same of experts, float32 [experts, tokens, statistics + 1, channels]; the last one is the number of tokens."""
    is_last = torch.zeros_like(real)
    is_last[torch.arange(len(last), device=last.device), last] = 1
    h = routed.h.float()
    result = h.new_zeros((experts, len(TOKENS), len(STATISTICS) + 1, h.shape[-1]))
    for i, weights in enumerate((real.flatten(), is_last.flatten())):
        counts = weights[routed.tokens] > 0
        rows, of = h[counts], routed.experts[counts]
        for j, numbers in enumerate((rows, rows.abs(), (rows > 0).float(), torch.ones_like(rows))):
            result[:, i, j].index_add_(0, of, numbers)
    return result


def _resumed(kind: type[StoredProfile[Any]], folder: Path, config: ProfileConfig) -> dict[str, Any]:
    """Takes the folder for a profile; the languages of an earlier, interrupted run of the same one."""
    return kind.load(folder).by_language if take_folder(folder, config) else {}
