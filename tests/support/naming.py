"""Which names of the package cannot be told apart: two of the same, or two that differ by an ending alone."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

# Endings that do not make another word: the plural, the participle, the doer.
_ENDINGS = re.compile(r"(?:ings?|ers?|eds?|es|s|e|ed|ison|isons|ion|ions)$")


def stem(word: str) -> str:
    """A word without its ending: `tuned`, `tuning` and `tune` have one stem."""
    short = _ENDINGS.sub("", word)
    if len(short) > 3 and short[-1] == short[-2]:  # planning, plan
        short = short[:-1]
    return short if len(short) > 2 else word


def words(name: str) -> tuple[str, ...]:
    """The stems of a name's words, in either spelling: `MaskSet`, `mask_set`."""
    return tuple(stem(part) for part in re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_") if part)


def named(package: Path) -> dict[str, dict[str, list[str]]]:
    """Kind (module, class, function, value) -> name -> where it is."""
    found: dict[str, dict[str, list[str]]] = {kind: defaultdict(list) for kind in ("module", "class", "function", "value")}
    for path in sorted(package.rglob("*.py")):
        where = ".".join(path.relative_to(package).with_suffix("").parts)
        if path.name == "__init__.py":
            if path.parent != package:
                found["module"][path.parent.name].append(where.removesuffix(".__init__") + "/")
            continue
        found["module"][path.stem].append(where)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                found["class"][node.name].append(where)
            elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                found["function"][node.name].append(where)
            elif isinstance(node, (ast.Assign, ast.AnnAssign)):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for one in (one for target in targets for one in ast.walk(target) if isinstance(one, ast.Name)):
                    if not one.id.startswith("_") and one.id != "logger":
                        found["value"][one.id].append(where)
    return found


def same(package: Path) -> list[str]:
    """Names that stand in two places."""
    found = named(package)
    of_code: dict[str, list[str]] = defaultdict(list)
    for kind in ("class", "function", "value"):
        for name, places in found[kind].items():
            of_code[name] += [f"{place} ({kind})" for place in places]
    return [
        f"{kind} {name}: {', '.join(places)}"
        for kind, names in (("module", found["module"]), ("name", of_code))
        for name, places in sorted(names.items())
        if len(places) > 1
    ]


def alike(package: Path) -> list[str]:
    """Names of one kind that differ by an ending alone."""
    lines = []
    for kind, names in named(package).items():
        if kind == "value":
            continue
        stems: dict[tuple[str, ...], list[str]] = defaultdict(list)
        for name in names:
            stems[words(name)].append(name)
        lines += [
            f"{kind}: " + ", ".join(f"{name} ({', '.join(names[name])})" for name in sorted(together))
            for together in stems.values()
            if len(together) > 1
        ]
    return lines
