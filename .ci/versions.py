"""Prints what an environment consists of, on one line after its label: `versions.py LABEL`."""

import platform
import sys
from importlib.metadata import version

NAMES = ("torch", "transformers", "lm_eval", "datasets", "accelerate", "huggingface_hub", "peft", "numpy", "pandas")

found = [f"python {platform.python_version()}", *(f"{name} {version(name)}" for name in NAMES)]
print(f"Versions, {sys.argv[1]}: {', '.join(found)}")
