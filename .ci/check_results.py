"""Reads the results of the main job back and checks that they say what was run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from lm_eval_clas import MaskSet

(path,) = Path(sys.argv[1]).rglob("results_*.json")
found = json.loads(path.read_text())
clas = found["config"]["clas"]
masks = MaskSet.load("gemma-3-270m")

assert clas["masks_hash"] == masks.hash, clas
assert clas["layers"] == list(masks.bridge_layers) == [13, 14, 15], clas
assert (clas["method"], clas["alpha"], clas["beta"], clas["gamma"]) == ("clas", 1.0, 0.4, 0.2), clas
assert {language: entry["recognized"] for language, entry in clas["languages"].items()} == {
    "es": {"doc": 4},
    "hi": {"doc": 4},
    "sw": {"doc": 12},
}, clas
assert clas["left_alone"] == {"sw": "not in the masks"}, clas
for task, metrics in [
    ("clas_xquad_es", ["exact_match", "f1", "f1_lang"]),
    ("clas_xquad_hi", ["f1_lang"]),
    ("clas_xnli_dev_sw", ["acc"]),
]:
    assert found["n-samples"][task]["effective"] == 4, found["n-samples"]
    for metric in metrics:
        assert 0 <= found["results"][task][f"{metric},none"] <= 1, found["results"][task]
answers = [
    json.loads(line)["filtered_resps"][0]
    for file in Path(sys.argv[1]).rglob("samples_clas_xquad_*.jsonl")
    for line in file.read_text().splitlines()
]
assert len(answers) == 8, answers
assert sum(bool(answer.strip()) for answer in answers) > 4, answers
print(f"{path.name}: steered with masks {clas['masks_hash']}, {len(answers)} XQuAD answers, all as expected")
