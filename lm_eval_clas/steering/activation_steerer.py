"""`ActivationSteerer`: what a method does in a language, and the one hook per bridge layer that applies it.

Where a method acts on neurons, the hook stands before each projection at the masks' site; where it acts on what leaves the
layers, behind each decoder layer. `methods/` has the methods and their equations.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.hooks import RemovableHandle

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.decoder.anatomy.layer_results import hidden_in, require_hidden, with_hidden
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.mixtures.expert_products import Change
from lm_eval_clas.decoder.mixtures.expert_taps import Tap, TapHandle, tap
from lm_eval_clas.decoder.projections import Projection, find_projections, layer_outputs
from lm_eval_clas.masks.mask_set import MaskSet
from lm_eval_clas.steering.attaching import AttachmentCheck, check_attachment
from lm_eval_clas.steering.language_blocks import LanguageBlock, block_in_force
from lm_eval_clas.steering.language_factors import LanguageFactors
from lm_eval_clas.steering.placed_effect import AddedMap, Effect


class ActivationSteerer(LanguageFactors):
    """Steers a model for one language at a time: neurons at the site that the masks were made for, or what leaves the layers.

    One hook per place in the bridge layers (of experts, a tap) is registered when the steerer is made and stays until `close`.
    A language only swaps what the hooks read; with none, or with the anchor, the hooks hand the activation on untouched. When
    the hooks are in place, one pass of a few tokens shows that they do what they should (`check`). They run outside of compiled
    code, so that a model may be compiled before or after.

    Examples:
        >>> steerer = ActivationSteerer(model, MaskSet.load("gemma-3-270m"), alpha=1.0)
        >>> with steerer.language("hi") as block:
        ...     model.generate(**inputs)
        >>> block.positions  # how many each layer scaled
        {13: 214, 14: 214, 15: 214}
        >>> steerer.close()

    Args:
        model: a Hugging Face decoder, on any devices, in any floating dtype, bare or wrapped by PEFT.
        masks: masks that were made for this model.
        projection: a pattern of module names, where the site's projections are not found by structure.
        **options: alpha (a number, a mapping by language, or the path of a .json file; default 1.0; `tuned` is refused), beta,
            gamma and layers (default: the masks'), specific_scope, partial_scope, method and seed, as `SteeringOptions`
            describes them.

    Attributes:
        masks: the masks.
        steering: the checked options.
        projection: as given.
        check: what the check found; None where no language is steered.

    Raises:
        ClasError: the masks do not fit the model, an option is wrong, or a pass does not run each bridge projection once, on
            its scaled input.
    """

    def __init__(self, model: nn.Module, masks: MaskSet, *, projection: str | None = None, **options: Any) -> None:
        projections = find_projections(model, masks.config.site, projection or masks.config.projection)
        masks.config.model.fingerprint.require(ModelFingerprint.of(model, projections), "This mask folder")
        super().__init__(masks, **options)
        if self.acts_on == "outputs":
            projections = layer_outputs(model)
        self.projection = projection
        self._names = [projection.name for projection in projections]
        self.check: AttachmentCheck | None = None
        self._model = model
        self._placed: dict[tuple[str | None, int, int, torch.device, torch.dtype], Effect | None] = {}
        self._open_blocks: set[LanguageBlock] = set()
        self._handles: list[RemovableHandle | TapHandle] = []
        self._closed = False
        hooked = () if self.steering.does_nothing else self.steering.layers
        self._places = [projection for projection in projections if projection.layer in hooked]
        self._counting: dict[str | None, set[tuple[int, int]]] = {}
        # All languages take the same way, so one of them shows whether it leads anywhere.
        if (language := next(filter(self.changes, masks.languages), None)) is None or not hooked:
            self._attach()
            return
        try:
            self.check = check_attachment(
                model, self._places, self._attach, self._block(language), lambda *at: self._at(language, *at)
            )
        except BaseException:
            self.close()
            raise

    def digest(self, language: str | None) -> str:
        """What identifies the function that a language's passes are: modules and factors; empty if nothing is changed."""
        return " ".join([*self._names, super().digest(language)]) if self.changes(language) else ""

    @property
    def first_rerun(self) -> int:
        """The first layer that runs otherwise under another strength: the first steered one, or that above it, where what
        leaves a layer is steered (`resuming.py`)."""
        return min(self.steering.layers) + (self.acts_on == "outputs")

    def language(self, language: str | None) -> LanguageBlock:
        """Steers every pass of the model inside the block for `language`, by code or name; the anchor is left alone.

        Blocks nest; the inner one wins. Each thread and each asynchronous task has its own. Nothing is hooked or unhooked. The
        block has the number of positions that it steered, by layer.

        Raises:
            ClasError: the masks do not have the language, the steerer is closed, or the model is no longer the one that it was
                made for.
        """
        if self._closed:
            raise ClasError("This ActivationSteerer is closed and steers nothing any more; make a new one.")
        self._require_unchanged()
        return self._block(self._code_of(language))  # an unknown language fails here and not in the middle of a pass

    def close(self) -> None:
        """Takes the hooks off; the model is as it was."""
        self._closed = True
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._placed.clear()

    def __enter__(self) -> ActivationSteerer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _attach(self) -> None:
        for place in self._places:
            module = place.module
            if place.of_output:
                self._handles.append(module.register_forward_hook(self._output_hook(place)))
            elif place.experts:
                self._handles.append(tap(module, self._tap(place)))
            else:
                self._handles.append(module.register_forward_pre_hook(self._hook(place)))

    def _block(self, language: str | None) -> LanguageBlock:
        return LanguageBlock(self, self._open_blocks, language, self.steered_layers(language))

    def _require_unchanged(self) -> None:
        """The modules that were hooked are still the model's, and still hooked."""
        for projection, handle in zip(self._places, self._handles, strict=True):
            try:
                same = self._model.get_submodule(projection.name) is projection.module
            except AttributeError:
                same = False
            module = projection.module
            hooks = module._forward_hooks if projection.of_output else module._forward_pre_hooks
            on = handle.on if isinstance(handle, TapHandle) else handle.id in hooks
            if not same or not on:
                what = "has lost its hook" if same else "is another module now"
                raise ClasError(
                    f"The model was changed after this ActivationSteerer was made ('{projection.name}' {what}); make a new one "
                    "for the model as it is."
                )

    def _effect(self, place: Projection, module: nn.Module, activation: torch.Tensor) -> tuple[Effect, slice | None] | None:
        """What is done at a place in the pass that runs, and to which rows; None for nothing. Counts the positions."""
        block = None if self._closed else block_in_force(self, self._open_blocks)
        if block is None or place.layer not in block.positions:
            return None
        if module is not place.module:
            raise ClasError(
                "This is a copy of the model that the ActivationSteerer was made for, which steers the original only; make "
                "one for the copy."
            )
        effect, rows = self._placed_at(block.language, place, activation), block.rows_of(len(activation))
        chosen = activation if rows is None else activation[rows]
        if (place.layer, place.start) in self._counted(block.language):
            if effect is None:
                block.rounded[place.layer] = str(activation.dtype).removeprefix("torch.")
            else:
                block.count(place.layer, chosen.numel() // chosen.shape[-1])
        return None if effect is None or not chosen.numel() else (effect, rows)

    def _hook(self, place: Projection) -> Any:
        def steer(module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
            found = self._effect(place, module, args[0])
            return None if found is None else (found[0].on(args[0], found[1]), *args[1:])

        # Compiled code would keep the language of the time when it was compiled.
        return torch.compiler.disable(steer)  # type: ignore[no-untyped-call]

    def _output_hook(self, place: Projection) -> Any:
        def steer(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
            hidden = require_hidden(place.name, hidden_in(output), place.neurons)
            found = self._effect(place, module, hidden)
            return None if found is None else with_hidden(output, found[0].on(hidden, found[1]))

        return torch.compiler.disable(steer)  # type: ignore[no-untyped-call]

    def _tap(self, place: Projection) -> Tap:
        def ask(module: nn.Module, hidden: torch.Tensor) -> Change | None:
            found = self._effect(place, module, hidden)
            return None if found is None else lambda routed: found[0].on_routed(routed, found[1])

        return ask

    def _counted(self, language: str | None) -> set[tuple[int, int]]:
        """The places, by layer and first neuron, that count positions: in each layer the first that is changed."""
        if language not in self._counting:
            done = self.intervention(language)
            counting: dict[int, int] = {}
            for place in self._places:
                if done.changes_at(place.layer, place.here):
                    counting.setdefault(place.layer, place.start)
            self._counting[language] = set(counting.items())
        return self._counting[language]

    def _placed_at(self, language: str | None, place: Projection, activation: torch.Tensor) -> Effect | None:
        """What is done at a place, on the activation's device and in its dtype; None where that is nothing."""
        key = (language, place.layer, place.start, activation.device, activation.dtype)
        if key not in self._placed:
            effect = self._at(language, place, activation)
            self._placed[key] = effect if effect.changes else None
        return self._placed[key]

    def _at(self, language: str | None, place: Projection, activation: torch.Tensor) -> Effect:
        done, where = self.intervention(language), (place.layer, place.here)
        wide = (-1,) if place.experts is None else (place.experts, -1)

        def placed(numbers: NDArray[np.float32]) -> torch.Tensor:
            return torch.from_numpy(numbers[where]).reshape(wide).to(activation.device, activation.dtype)

        shift = None if done.shifts is None else placed(done.shifts)
        if (map_ := done.maps.get(place.layer)) is None:
            return Effect(placed(done.factors), shift)
        halves = (torch.from_numpy(one).to(activation.device) for one in (map_.down, map_.up))
        return Effect(placed(done.factors), shift, AddedMap(*halves))
