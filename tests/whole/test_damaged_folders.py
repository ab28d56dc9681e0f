"""Mask folders and profiles after random edits by the thousand: a clear error or a correct load; no crash, hang or code run.

Every case starts from a sound folder, makes one to three edits (`damaging.py`) with a generator seeded by its number, and loads
it with limits on time and memory, while an audit hook watches what Python is asked to do.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damaging import CANARY, damage

from lm_eval_clas import ClasError, MaskSet, NeuronCategorizer, Profile
from lm_eval_clas.export.cards import masks_card
from lm_eval_clas.export.outline import scalings
from lm_eval_clas.masks.inspection import summary
from lm_eval_clas.masks.strengths import TriedSetting, TunedStrength
from lm_eval_clas.steering.by_task import tuned_settings
from lm_eval_clas.steering.effects import intervention_in
from lm_eval_clas.steering.options import SteeringOptions

CASES = 100  # in a block
BLOCKS = {"plain": 10, "means": 10, "profile": 5}
SECONDS, MEMORY = 20, 2 << 30  # a case takes milliseconds, and some megabytes

CONFIGURATION = {"plain": "clas_config.json", "means": "clas_config.json", "profile": "clas_profile.json"}
LOAD: dict[str, Callable[[Path], Any]] = {"plain": MaskSet.load, "means": MaskSet.load, "profile": Profile.load}


@pytest.fixture(scope="module")
def sound(profiled: Profile, masks: MaskSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with sound folders: masks, masks with all that masks can have, and a profile."""
    root = tmp_path_factory.mktemp("sound")
    masks.save(root / "plain")
    measured = TriedSetting(alpha=-2, beta=0.3, gamma=0.1, layers=[3], score=0.5, gain=0.1, low=0.0, high=0.2)
    tuned = TunedStrength(
        chosen=measured, best=measured, p_value=0.01, objective="metric", metric="acc", guarded=False, shared=False,
        tasks=["clas_xnli_tune_hi"], items=3, items_sha256="0" * 64, measured=[measured],
    )  # fmt: skip
    everything = MaskSet.from_profile(
        profiled, categorizer=NeuronCategorizer(threshold=0.005), bridge="2-4", keep_means=True
    ).with_instance_shares(np.full((6, 4), 0.25))
    everything.with_tuned({"clas_xnli": {"hi": tuned}}).save(root / "means")
    profiled.save(root / "profile")
    return root


_FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class", "socket.connect")
_ELSEWHERE = (sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))  # Python's and our own files
_watched: Path | None = None
_seen: list[str] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Notes what no load has any business with. A hook cannot be taken off again, so this one asks whether it is wanted."""
    if _watched is None:
        return
    if event in _FORBIDDEN:
        _seen.append(f"{event} {arguments}")
    if event == "open" and not isinstance(arguments[0], int):
        path, writes = os.path.abspath(os.fsdecode(arguments[0])), set("wax+") & set(arguments[1] or "")
        if writes or not path.startswith((str(_watched), *_ELSEWHERE)):
            _seen.append(f"open {path} {arguments[1]}")


sys.addaudithook(_audit)


@contextmanager
def watched(folder: Path) -> Iterator[None]:
    """Fails on what a load must not do, and interrupts one that takes too much time or memory."""
    global _watched

    def too_long(*_: Any) -> None:
        raise TimeoutError(f"longer than {SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, limits[1]))
    signal.alarm(SECONDS)
    _seen.clear()
    _watched = folder
    try:
        yield
    finally:
        _watched = None
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)
    assert not _seen, _seen


def use(masks: MaskSet) -> None:
    """What people do with masks that loaded: it works, or is refused with a sentence."""
    json.dumps(summary(masks))
    with suppress(ClasError):
        masks_card(masks, "user/name")
    for options in ({"alpha": 1.0}, {"alpha": -5, "specific_scope": "own"}, {"method": "int-mu"}):
        with suppress(ClasError):
            for language in masks.languages:
                factors = intervention_in(masks, SteeringOptions.parse(masks, **options), language).factors
                assert factors.shape == masks.active.shape[1:]
                assert np.isfinite(factors).all()
    with suppress(ClasError):
        tuned_settings(masks, {})
        for scaling in scalings(masks, None, alpha=2)[0]:  # their languages become names of folders
            assert not set("/\\.:") & set(scaling.language)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="limits on memory need Linux")
@pytest.mark.parametrize(("kind", "block"), [(kind, block) for kind, count in BLOCKS.items() for block in range(count)])
def test_a_damaged_folder_is_refused_or_loads(
    kind: str, block: int, sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes: Counter[str] = Counter()
    monkeypatch.chdir(tmp_path)  # where injected code would leave its mark
    for case in range(block * CASES, (block + 1) * CASES):
        folder = tmp_path / str(case)
        shutil.copytree(sound / kind, folder)
        edits = damage(folder, CONFIGURATION[kind], random.Random(f"{kind} {case}"))
        try:
            with watched(folder):
                loaded = LOAD[kind](folder)
                if isinstance(loaded, MaskSet):
                    use(loaded)
            said = ""
        except ClasError as error:
            said = str(error)
        except BaseException as error:
            raise AssertionError(f"{kind}, case {case}, after {edits}: {type(error).__name__}: {error}") from error
        outcomes["refused" if said else "loaded"] += 1
        assert said.isprintable(), (case, edits, said)
        assert len(said) < 2000, (case, edits, said)
        assert not list(tmp_path.rglob(CANARY)), (case, edits)
        shutil.rmtree(folder)
    print(dict(outcomes))
    assert outcomes["refused"] > CASES // 4
    assert outcomes["loaded"] > 0
