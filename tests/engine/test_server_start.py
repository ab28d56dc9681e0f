"""Arguments of a server, read by vLLM's own parser: what takes the steering away is found in whatever way it is written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from small_engines import MISSING

from lm_eval_clas import MaskSet
from lm_eval_clas.base.errors import ClasError
from lm_eval_clas.engine.server.served_steering import VARIABLE, ServedSteering
from lm_eval_clas.engine.server.server_start import run_server

pytest.importorskip("vllm", reason=MISSING)


@pytest.fixture
def served(engine_masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ServedSteering:
    monkeypatch.setenv(VARIABLE, "")  # a start sets both
    monkeypatch.setattr(sys, "argv", sys.argv)
    engine_masks.save(tmp_path / "masks")
    return ServedSteering(str(tmp_path / "masks"), {"alpha": -2.0})


STEERS = {
    "--worker-cls": ["--worker_cls=x.Y"],
    "--scheduler-cls": ["--scheduler-c", "x.Y"],
    "--additional-config": ["--additional-config.foo", "1"],
}


@pytest.mark.parametrize("option", STEERS)
def test_what_steers_cannot_be_another(
    option: str, served: ServedSteering, engine_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm.entrypoints.cli.main.main", lambda: pytest.fail("started"))
    with pytest.raises(ClasError, match=f"^{option} is what steers in vLLM, so it cannot be another; drop it.$"):
        run_server(str(engine_checkpoint), served, STEERS[option])


def test_nor_in_a_file_that_the_arguments_name(
    served: ServedSteering, engine_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vllm.entrypoints.cli.main.main", lambda: pytest.fail("started"))
    for line, sentence in {
        "additional-config.foo: 1": "--additional-config is what steers",
        "grpc: true": "--grpc starts a server that knows no languages",
    }.items():
        (tmp_path / "options.yaml").write_text(line, encoding="utf-8")
        with pytest.raises(ClasError, match=sentence):
            run_server(str(engine_checkpoint), served, ["--config", str(tmp_path / "options.yaml")])


def test_a_model_is_looked_at_with_its_revision_and_its_own_code(
    served: ServedSteering, engine_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, started = [], []
    monkeypatch.setattr("lm_eval_clas.engine.server.server_start.require_fit", lambda masks, *how: asked.append(how))
    monkeypatch.setattr("vllm.entrypoints.cli.main.main", lambda: started.append(True))
    run_server(str(engine_checkpoint), served, ["--trust_remote_code", "--rev", "v2"])
    assert asked == [("neurons", str(engine_checkpoint), "v2", True)]
    assert started == [True]
