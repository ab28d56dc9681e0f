"""The picture of the package's folders and of the direction of imports, from the contract in pyproject.toml.

    python docs/mkdocs/folders.py            # writes docs/folders.svg
    python docs/mkdocs/folders.py --check    # exit 1 if it is not what this makes

A row for each layer, above those that it may import; in each box a folder, and the first paragraph of its `__init__`.
"""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from pathlib import Path
from xml.sax.saxutils import escape

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "folders.svg"
WIDTH, LEFT, RIGHT, GAP = 960, 96, 24, 12
LINE, LETTER = 17, 7.4  # height of a line of text, and the width of a letter in wide fonts, in pixels


def layers() -> list[list[str]]:
    """The folders of each layer, the top one first."""
    found = re.search(r"^layers = (\[.*?^\])", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    rows = [[name.strip() for name in layer.split("|")] for layer in ast.literal_eval(found[1])]
    return [row for row in rows if row != ["__main__"]]


def idea(folder: str) -> str:
    """What a folder says of itself, in its first paragraph."""
    tree = ast.parse((ROOT / "lm_eval_clas" / folder / "__init__.py").read_text(encoding="utf-8"))
    return (ast.get_docstring(tree) or "").partition("\n\n")[0].replace("\n", " ").replace("`", "")


def picture() -> str:
    """The SVG."""
    parts: list[str] = []
    top = GAP + 8
    for row in layers():
        width = (WIDTH - LEFT - RIGHT - GAP * (len(row) - 1)) / len(row)
        told = [textwrap.wrap(idea(folder), int((width - 24) / LETTER)) for folder in row]
        height = LINE * (1 + max(map(len, told))) + 20
        for position, (folder, lines) in enumerate(zip(row, told, strict=True)):
            left = LEFT + position * (width + GAP)
            parts.append(f'<rect x="{left:g}" y="{top}" width="{width:g}" height="{height}" rx="6" class="folder"/>')
            parts.append(f'<text x="{left + 12:g}" y="{top + 24}" class="name">{escape(folder)}/</text>')
            for number, line in enumerate(lines, start=1):
                parts.append(f'<text x="{left + 12:g}" y="{top + 24 + LINE * number}">{escape(line)}</text>')
        top += height + GAP
    bottom = top - GAP
    parts.append(f'<path d="M 40 {GAP + 8} V {bottom - 10}" stroke="#333333" stroke-width="2"/>')
    parts.append(f'<path d="M 32 {bottom - 14} L 40 {bottom} L 48 {bottom - 14} Z" fill="#333333"/>')
    middle = (GAP + bottom) // 2
    parts.append(f'<text x="66" y="{middle}" transform="rotate(-90 66 {middle})" class="side">imports what is below</text>')
    title = "Folders of lm_eval_clas, from the command line down to what any program needs"
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {bottom + GAP + 8}" role="img" aria-label="{title}">',
        "<style>text { font: 13px system-ui, sans-serif; fill: #333333 } .name { font-weight: bold; font-size: 14px }",
        ".folder { fill: #eef3fb; stroke: #3f51b5 } .side { text-anchor: middle }</style>",
        f'<rect width="{WIDTH}" height="{bottom + GAP + 8}" rx="8" fill="#ffffff"/>',
    )
    return "\n".join([*head, *parts, "</svg>", ""])


def main() -> int:
    if "--check" in sys.argv[1:]:
        if PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == picture():
            return 0
        print(f"{PICTURE.name} is out of date: run python docs/mkdocs/{Path(__file__).name}", file=sys.stderr)
        return 1
    PICTURE.write_text(picture(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
