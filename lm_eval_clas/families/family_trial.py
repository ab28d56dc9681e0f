"""One family tried: a tiny random model is built, and everything that steering needs of it is done once and checked.

What cannot be done is said with its reason. What would be done and come out wrong is `WRONG`: the one answer that must never
stand in the table, as nobody would see it from outside.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import torch
from torch import nn

from lm_eval_clas.base.errors import ClasError, first_line
from lm_eval_clas.decoder.anatomy.decoder_lists import decoder_lists, layer_count
from lm_eval_clas.decoder.anatomy.expert_parts import other_experts, registered_experts
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.prefixes import Continuation, can_share_prefixes, group_by_prefix
from lm_eval_clas.decoder.projections import Projection, Site, find_projections
from lm_eval_clas.decoder.resuming import Tape, can_resume
from lm_eval_clas.decoder.scoring import Scorer
from lm_eval_clas.export.ia3_adapter import adapter_files
from lm_eval_clas.export.outline import Outline, Scaling
from lm_eval_clas.families.random_masks import random_masks
from lm_eval_clas.families.tiny_models import VOCABULARY, tiny_model
from lm_eval_clas.families.tried_in_vllm import tried_in_vllm
from lm_eval_clas.steering.activation_steerer import ActivationSteerer
from lm_eval_clas.verifying.merged_weights import merged

YES, NO, WRONG, NOTHING, FAILED = "yes", "no", "WRONG", "-", "failed"
_TOLERANCE = 1e-3  # of log-likelihoods and of logits, as a share of the largest; a wrong path is off by far more
_PATTERNS = ("*.down_proj", "*.fc2", "*.mlp.c_proj", "*.output.dense", "*.w2", "*.wo")


@dataclass(frozen=True)
class FamilyTrial:
    """A row of the table.

    Attributes:
        family: transformers' name of it, `config.model_type`.
        mlp, attn: the modules that steering works on, as found by structure; `by pattern: ...`; or `refused: ...`.
        same: whether steering equals scaled weights, at every site that was found; `failed: ...` here and elsewhere, where code
            raised what is no refusal of ours.
        resumable: whether passes resumed at a layer equal full ones, bit for bit.
        prefixes: whether what requests have in common runs once, and their scores are the same then.
        ia3: whether the MLP's steering as an (IA)3 adapter, loaded by PEFT, is what the hook does.
        vllm: what `vllm-clas` does with it, as it was tried where vLLM is installed (`tried_in_vllm.py`).
    """

    family: str
    mlp: str
    attn: str = NOTHING
    same: str = NOTHING
    resumable: str = NOTHING
    prefixes: str = NOTHING
    ia3: str = NOTHING
    vllm: str = NOTHING

    @property
    def built(self) -> bool:
        """Whether a tiny model could be built and run."""
        return not self.mlp.startswith("not built")

    @property
    def cells(self) -> tuple[str, ...]:
        """Its contents, in their order."""
        return tuple(getattr(self, field.name) for field in fields(self))


def try_family(family: str) -> FamilyTrial:
    """Tries one family; whatever happens is in the row."""
    ids = torch.arange(2 * 12).reshape(2, 12) * 7 % (VOCABULARY - 20) + 10
    try:
        model = lively(tiny_model(family))
        with torch.no_grad():
            logits = model(input_ids=ids).logits
        if logits.shape[:2] != ids.shape or not logits.isfinite().all():
            raise ValueError("it gives no finite logits for text alone")
        layer_count(model)
    except Exception as error:  # transformers raises every kind where a configuration is not consistent
        return FamilyTrial(family, f"not built: {short_error(error)}")
    found = {site: found_at(model, site) for site in get_args(Site)}
    same = {
        site: _attempt(lambda site=site, one=one: _steered_is_merged(model, ids, site, one))  # type: ignore[misc]
        for site, one in found.items()
        if one.places
    }
    return FamilyTrial(
        family,
        mlp=found["mlp"].cell,
        attn=found["attn"].cell,
        same=_together(list(same.values())),
        resumable=_attempt(lambda: _resumable(model, ids)),
        prefixes=_attempt(lambda: _shares_prefixes(model)),
        vllm=tried_in_vllm().cell(family),
        # The last, as the adapter stays on.
        ia3=_attempt(lambda: _adapter_is_steered(model, ids, found["mlp"])) if found["mlp"].places else NOTHING,
    )


def lively(model: nn.Module) -> nn.Module:
    """The same with weights so large that steering shows in its logits."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "embed" not in name and "router" not in name:
                parameter.mul_(4)
    return model


@dataclass(frozen=True)
class AtSite:
    """What was found at a site: in words, the places, and the pattern that they needed."""

    cell: str
    places: list[Projection]
    pattern: str | None = None


def found_at(model: nn.Module, site: Site) -> AtSite:
    try:
        return _look(model, site)
    except Exception as error:  # no kind that one family raises is to end the trial of the others
        return AtSite(_failed(error), [])


def _look(model: nn.Module, site: Site) -> AtSite:
    try:
        return AtSite(_names(model, found := find_projections(model, site)), found)
    except ClasError as error:
        reason = str(error)
    for pattern in _PATTERNS if site == "mlp" else ():
        try:
            found = find_projections(model, site, pattern)
        except ClasError:
            continue
        # Experts match no pattern, so what does is the MLP beside them.
        rest = "; its experts are not steered" if _has_experts(model) else ""
        return AtSite(f"by pattern: `{pattern}`, here {_names(model, found)}{rest}", found, pattern)
    return AtSite(f"refused: {short_reason(reason)}", [])


def _has_experts(model: nn.Module) -> bool:
    layers = [layer for _, layers in decoder_lists(model) for layer in layers]
    return any(other_experts(layer) or any(registered_experts(layer)) for layer in layers)


def _names(model: nn.Module, places: list[Projection]) -> str:
    """The modules' names in their layers, each once, and the layers that have none."""
    names = dict.fromkeys(re.sub(r"^.*?\.\d+\.", "", place.name) for place in places)
    empty = ModelFingerprint.of(model, places).empty_layers
    some = f" (in {layer_count(model) - len(empty)} of {layer_count(model)} layers)" if empty else ""
    return ", ".join(f"`{name}`" for name in names) + some


def _steered_is_merged(model: nn.Module, ids: torch.Tensor, site: Site, found: AtSite) -> str:
    masks = random_masks(model, site, found.pattern)
    with torch.no_grad(), ActivationSteerer(model, masks, projection=found.pattern, alpha=-3.0) as steerer:
        plain, idle = model(input_ids=ids).logits, model(input_ids=ids).logits
        with steerer.language("de"):
            steered = model(input_ids=ids).logits
        with merged(found.places, steerer.intervention("de")):
            expected = model(input_ids=ids).logits
    moved = not _close(plain, steered, expected)
    return YES if moved and _close(steered, expected, expected) and torch.equal(plain, idle) else WRONG


def _adapter_is_steered(model: nn.Module, ids: torch.Tensor, found: AtSite) -> str:
    """Leaves the model with the adapter on it."""
    if any(one.experts for one in found.places):
        return NO
    from peft import PeftModel

    masks = random_masks(model, "mlp", found.pattern)
    with torch.no_grad(), ActivationSteerer(model, masks, projection=found.pattern, alpha=-3.0) as steerer:
        with steerer.language("de"):
            steered = model(input_ids=ids).logits
        scaling = Scaling("de", steerer.steering, steerer.intervention("de"))
    with TemporaryDirectory() as folder:
        for name, content in adapter_files(scaling, Outline("tiny", None, model.config, found.places, model)).items():
            (Path(folder) / name).write_bytes(content)
        adapted = PeftModel.from_pretrained(model, folder).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        logits = adapted(input_ids=ids).logits
    return YES if _close(logits, steered, steered) else WRONG


def _close(one: torch.Tensor, other: torch.Tensor, scale: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= _TOLERANCE * scale.abs().max())


def _resumable(model: nn.Module, ids: torch.Tensor) -> str:
    layer = layer_count(model) // 2
    if not can_resume(model, layer):
        return NO
    with torch.no_grad():
        full = model(input_ids=ids, use_cache=False).logits
        tape = Tape(model, layer)
        for _ in range(2):
            with tape.running():
                logits = model(input_ids=ids, use_cache=False).logits
    return YES if torch.equal(full, logits) else WRONG


def _shares_prefixes(model: nn.Module) -> str:
    if not can_share_prefixes(model):
        return NO
    start = tuple(range(20, 50))
    requests = [Continuation((*start, 60 + i, 70 + i, *range(80, 80 + i)), (80 + i, 81 + i)) for i in range(4)]
    scorer = Scorer(model, torch.device("cpu"))
    together = group_by_prefix(requests, share=True)
    scores = [
        {one.position: one.log_likelihood for one in scorer.score(groups, requests)}
        for groups in (together, group_by_prefix(requests, share=False))
    ]
    if not any(group.has_suffixes for group in together):
        return WRONG
    differ = max(abs(scores[0][i] - scores[1][i]) for i in range(len(requests)))
    return YES if differ <= _TOLERANCE * max(1.0, abs(scores[1][0])) else WRONG


def _attempt(run: Callable[[], str]) -> str:
    """What `run` says; why it is refused, or how it failed, where it raises."""
    try:
        return run()
    except ClasError as error:
        return f"refused: {short_reason(str(error))}"
    except Exception as error:  # the family's own code may raise every kind; the user sees an error, too, and no wrong number
        return _failed(error)


def _failed(error: Exception) -> str:
    return f"{FAILED}: {short_error(error)}"


def _together(cells: list[str]) -> str:
    if not cells:
        return NOTHING
    return WRONG if WRONG in cells else next((cell for cell in cells if cell != YES), YES)


def short_reason(message: str) -> str:
    """The reason of a refusal, without the names of modules and what to do."""
    message = re.sub(r"^.*? as it is: ", "", message)
    ends = r"; its modules are| \(its linear modules are|; name |; use |; supported are|\. Name "
    return re.split(ends, message)[0].rstrip(".")


def short_error(error: Exception, said: str | None = None) -> str:
    """The kind of an error and the first line of what it says, or of what is `said` in its place, as far as a cell has room."""
    line = first_line(error if said is None else ValueError(said))
    return textwrap.shorten(f"{type(error).__name__}: {line}".replace("`", ""), 110, placeholder=" ...")
