"""Mixtures of experts: what profiles and masks of a large one need, and what steering costs a small one.

python benchmarks/experts.py memory     # the shape of Qwen3-30B-A3B, 15 languages: computed, and measured
python benchmarks/experts.py speed      # a tiny Qwen3-MoE: steered, against the same experts function unsteered
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path
from statistics import quantiles

import numpy as np
import torch

from lm_eval_clas import ActivationSteerer, MaskSet, NeuronCategorizer
from lm_eval_clas.decoder.anatomy.layer_axes import LayerAxes
from lm_eval_clas.decoder.fingerprint import ModelFingerprint
from lm_eval_clas.decoder.mixtures.expert_taps import tap
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.families.random_masks import random_masks
from lm_eval_clas.neurons.activity import STATISTICS, TOKENS
from lm_eval_clas.neurons.profile_folder import Profile, ProfileConfig, Sums, save_config

LAYERS, EXPERTS, CHANNELS, LANGUAGES = 48, 128, 768, 15


def memory() -> None:
    """Writes a profile language by language, as `clas profile` does, and makes masks of it."""
    layout = LayerAxes(tuple(((EXPERTS, CHANNELS),) for _ in range(LAYERS)))
    size = ModelFingerprint(
        model_type="qwen3_moe", layers=LAYERS, neurons=EXPERTS * CHANNELS, hidden_size=2048, config_hash="0" * 16,
        holds=layout.written,
    )  # fmt: skip
    codes = ["en", "ar", "bg", "de", "el", "es", "fr", "hi", "ru", "sw", "th", "tr", "ur", "vi", "zh"][:LANGUAGES]
    config = ProfileConfig(
        model="none", fingerprint=size, corpus="none", corpus_sha256="", languages=codes, samples=100, max_tokens=2048
    )
    neurons = LAYERS * EXPERTS * CHANNELS
    numbers = len(TOKENS) * len(STATISTICS)
    print(f"neurons {neurons:,}; a profile, computed: {LANGUAGES * numbers * neurons * 4 / 1e9:.2f} GB of float32")
    bits = LANGUAGES * neurons / 8 / 1e6
    print(f"masks, computed: {bits:.1f} MB of bits, {LANGUAGES * LAYERS * EXPERTS * 8 / 1e6:.1f} MB of counts")
    draw = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "profile"
        place.mkdir()
        save_config(config, place)
        for code in codes:
            one = draw.standard_normal((LAYERS, EXPERTS * CHANNELS), dtype=np.float32)
            sums = {(tokens, statistic): one for tokens in TOKENS for statistic in STATISTICS}
            routed = {tokens: draw.integers(200, 2000, (LAYERS, EXPERTS)) for tokens in TOKENS}
            Profile.save_language(Sums(sums, {"all": 20_000, "last": 100}, routed), place, code)
        print(f"a profile, on disk: {_bytes(place) / 1e9:.2f} GB")
        masks = MaskSet.from_profile(Profile.load_finished(place), bridge="30-40", categorizer=NeuronCategorizer())
        print(f"most memory while masks were made of it: {_peak():.2f} GB")
        print(f"masks, on disk: {_bytes(masks.save(Path(folder) / 'masks')) / 1e6:.1f} MB")
        started = time.perf_counter()
        MaskSet.load(Path(folder) / "masks").categories.sum()
        print(f"masks, read and categorised: {time.perf_counter() - started:.1f} s")


def speed() -> None:
    """Pairs of passes in turn, as machines slow down and speed up."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = Qwen3MoeConfig(
        vocab_size=512, hidden_size=128, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2, head_dim=32,
        num_experts=16, num_experts_per_tok=4, moe_intermediate_size=96,
    )  # fmt: skip
    for implementation in ("grouped_mm", "eager"):
        model = Qwen3MoeForCausalLM(config).eval()
        model.set_experts_implementation(implementation)
        ids = torch.arange(8 * 128).reshape(8, 128) % 512
        places = find_projections(model)

        def run(model: torch.nn.Module = model, ids: torch.Tensor = ids) -> float:
            started = time.process_time()
            with torch.no_grad():
                model(input_ids=ids)
            return time.process_time() - started

        times: dict[str, list[float]] = {"the model's own": [], "ours, unsteered": [], "ours, steered": []}
        masks = random_masks(model)
        for _ in range(40):
            times["the model's own"].append(run())
            handles = [tap(place.module, lambda module, hidden: lambda routed: routed.h) for place in places]
            times["ours, unsteered"].append(run())
            for handle in handles:
                handle.remove()
            with ActivationSteerer(model, masks, alpha=-1.0) as steerer, steerer.language("de"):
                times["ours, steered"].append(run())
        middle = {name: quantiles(seconds[3:], n=4)[0] for name, seconds in times.items()}
        print(implementation, {name: f"{seconds * 1000:.1f} ms" for name, seconds in middle.items()})
        print(f"  steered / unsteered: {middle['ours, steered'] / middle['ours, unsteered']:.3f}")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    {"memory": memory, "speed": speed}[sys.argv[1]]()
