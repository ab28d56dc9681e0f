"""Prints the oldest versions that pyproject.toml allows, one exact requirement for pip a line; the package is installed.

Lower bounds are written down there only. torch is left out: both environments have the build that is named in `run`, as its
older ones are not offered everywhere.
"""

from importlib.metadata import requires

from packaging.requirements import Requirement

EXTRAS = ("", "test", "demo", "plots")

pins = {}
for requirement in map(Requirement, requires("lm-eval-clas") or ()):
    wanted = requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in EXTRAS)
    if wanted and requirement.name not in ("torch", "lm-eval-clas"):
        pins[requirement.name] = next(one.version for one in requirement.specifier if one.operator == ">=")
print("\n".join(f"{name}=={oldest}" for name, oldest in pins.items()))
