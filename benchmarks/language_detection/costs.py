"""What a library costs: disk, compiled parts, start-up time and memory."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from importlib import import_module, metadata
from pathlib import Path

from libraries import CANDIDATE_SETS, LIBRARIES


def closure(distribution: str) -> dict[str, metadata.Distribution]:
    """The distribution and all that it requires, as installed here."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, metadata.Distribution] = {}
    queue = [distribution]
    while queue:
        name = canonicalize_name(queue.pop())
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for text in found[name].requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                queue.append(requirement.name)
    return found


def megabytes(distributions: Iterable[metadata.Distribution]) -> float:
    """What the files of the distributions take on disk, byte code left out."""
    size = 0
    for distribution in distributions:
        for file in distribution.files or ():
            path = Path(str(distribution.locate_file(file)))
            if path.suffix != ".pyc" and path.is_file():
                size += path.stat().st_size
    return size / 1e6


def compiled_parts(distributions: Mapping[str, metadata.Distribution]) -> str:
    """The distributions among these whose installed wheel has compiled code, by its tags."""
    parts = []
    for name, distribution in distributions.items():
        lines = (distribution.read_text("WHEEL") or "").splitlines()
        tags = [line.split(":", 1)[1].strip() for line in lines if line.startswith("Tag:")]
        if not all(tag.endswith("-none-any") for tag in tags):
            parts.append(name)
    return ", ".join(sorted(parts)) or "none"


def memory_mb() -> float | None:
    """The peak resident memory of this process, or None where the platform does not say (other than Linux)."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), None)
    return None if peak is None else int(peak.split()[1]) * 1024 / 1e6


def cold_start(name: str, preload: str) -> None:
    """In a fresh process: import, make a detector, make one guess; print the time and the memory as JSON."""
    if preload:
        import_module(preload)
    before = memory_mb()
    start = time.perf_counter()
    LIBRARIES[name].make(CANDIDATE_SETS["16"])("Where is the nearest railway station?")
    seconds = time.perf_counter() - start
    after = memory_mb()
    grown = None if before is None or after is None else after - before
    print(json.dumps({"seconds": seconds, "memory": grown}))


def measure_cold_start(name: str, preload: str, repeats: int) -> tuple[float, float | None]:
    """Median seconds and median growth of the peak memory (MB) over fresh processes."""
    command = [sys.executable, os.fspath(Path(__file__).resolve().parent), "--cold-start", name, "--preload", preload]
    runs: list[dict[str, float | None]] = []
    for _ in range(repeats):
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        runs.append(json.loads(output.splitlines()[-1]))
    seconds = statistics.median(run["seconds"] or 0.0 for run in runs)
    memory = [run["memory"] for run in runs if run["memory"] is not None]
    return seconds, statistics.median(memory) if memory else None
