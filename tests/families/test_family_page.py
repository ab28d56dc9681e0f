"""Every family of the installed transformers, on a tiny model: nothing silently wrong, and nothing worse than on the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers

from lm_eval_clas.families.family_table import decoder_families, family_rows, read_family_page, totals, worse
from lm_eval_clas.families.family_trial import NO, WRONG, YES, FamilyTrial, try_family
from lm_eval_clas.families.tiny_models import tiny_model

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "families.md").read_text(encoding="utf-8")
ON_PAGE = read_family_page(PAGE)
SAME_VERSION = f"transformers {transformers.__version__}," in PAGE

pytestmark = pytest.mark.filterwarnings("default")  # of families' own code


@pytest.mark.slow
@pytest.mark.parametrize("family", decoder_families())
def test_a_family_is_as_on_the_page_and_never_silently_wrong(family: str) -> None:
    now = try_family(family)
    assert WRONG not in now.cells, now
    if SAME_VERSION:
        assert family in ON_PAGE, "run python docs/mkdocs/families.py"
        assert not worse(ON_PAGE[family], now)


def test_the_page_has_as_many_families_as_it_says() -> None:
    built = [one for one in ON_PAGE.values() if one.built]
    assert len(built) >= 70
    assert not any(WRONG in one.cells for one in ON_PAGE.values())
    assert totals(list(ON_PAGE.values())) in re.sub(r"\s+", " ", PAGE)


def test_a_page_is_read_as_it_was_written() -> None:
    trials = [FamilyTrial("a", "`fc2`", "refused: a | b", YES, NO, YES, YES, "merged"), FamilyTrial("b", "not built: c")]
    read = read_family_page("\n".join(family_rows(trials)))
    assert list(read) == ["a", "b"]
    assert read["b"] == trials[1]
    assert read["a"].attn == "refused: a / b"


@pytest.mark.parametrize(
    ("before", "now", "found"),
    [
        ({"same": YES}, {"same": WRONG}, 1),
        ({"same": NO}, {"same": WRONG}, 1),
        ({"prefixes": YES}, {"prefixes": NO}, 1),
        ({"prefixes": NO}, {"prefixes": YES}, 0),
        ({"mlp": "`fc2`"}, {"mlp": "by pattern: `*.fc2`"}, 1),
        ({"mlp": "by pattern: `*.fc2`"}, {"mlp": "refused: why"}, 1),
        ({"mlp": "refused: why"}, {"mlp": "refused: another"}, 0),
    ],
)
def test_what_is_worse(before: dict[str, str], now: dict[str, str], found: int) -> None:
    a, b = (FamilyTrial("x", **{"mlp": "`fc2`", **cells}) for cells in (before, now))
    assert len(worse(a, b)) == found


@pytest.mark.skipif(transformers.__version__ < "5", reason="these tiny models are of transformers 5")
def test_a_wrong_path_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a rule lets pass what is not exact, the row says so."""
    monkeypatch.setattr("lm_eval_clas.families.family_trial.can_resume", lambda *_: True)
    assert try_family("gemma3n_text").resumable.startswith("no: KeyError")
    monkeypatch.setattr("lm_eval_clas.families.family_trial.merged", _nothing)
    assert try_family("llama").same == WRONG


def _nothing(*_: object):
    from contextlib import nullcontext

    return nullcontext()


def test_tiny_models_are_tiny_and_seeded() -> None:
    one, other = tiny_model("llama"), tiny_model("llama")
    assert sum(parameter.numel() for parameter in one.parameters()) < 100_000
    assert all((a == b).all() for a, b in zip(one.parameters(), other.parameters(), strict=True))
