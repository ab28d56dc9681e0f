"""Every family of the installed transformers, on a tiny model: nothing silently wrong, and nothing worse than on the page."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import transformers
from small_models import Run

from lm_eval_clas.engine.refusals import KNOWN_VERSIONS
from lm_eval_clas.export.ia3_adapter import adapter_files
from lm_eval_clas.export.outline import Outline, Scaling
from lm_eval_clas.families.family_table import decoder_families, family_rows, read_family_page, totals, worse
from lm_eval_clas.families.family_trial import NO, WRONG, YES, FamilyTrial, try_family
from lm_eval_clas.families.tiny_models import LAYERS, Widths, tiny_model
from lm_eval_clas.families.tried_in_vllm import BREAKS, BY_TRANSFORMERS, NOT_THERE, NOT_TRIED, OTHERWISE, WORKS, tried_in_vllm
from lm_eval_clas.steering.methods.intervention import Intervention

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


def test_the_page_says_of_vllm_what_the_package_says() -> None:
    """vLLM runs in an environment of its own: what was found there is kept in a file."""
    tried = tried_in_vllm()
    assert tried.versions in re.sub(r"\s+", " ", PAGE)
    assert tried.vllm == KNOWN_VERSIONS
    assert WRONG not in tried.cells.values()
    built = {one.family: one.vllm for one in ON_PAGE.values() if one.built}
    assert built == {family: tried.cell(family).replace("|", "/") for family in built}


def test_the_command_has_the_column_and_says_with_which_versions(clas: Run) -> None:
    code, out, err = clas("families", "opt", "mixtral", "--json")
    assert code == 0
    cells = tried_in_vllm().cells
    assert {row["family"]: row["vLLM"] for row in json.loads(out)} == {name: cells[name] for name in ("opt", "mixtral")}
    assert f"What stands under vLLM was found with {tried_in_vllm().versions}." in re.sub(r"\s+", " ", err)


def test_a_page_is_read_as_it_was_written() -> None:
    trials = [FamilyTrial("a", "`fc2`", "refused: a | b", YES, NO, YES, YES, WORKS), FamilyTrial("b", "not built: c")]
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
        ({"mlp": "refused: why"}, {"mlp": "failed: KeyError: a"}, 0),
        ({"mlp": "`fc2`"}, {"mlp": "failed: KeyError: `fc2`"}, 1),
        ({"ia3": YES}, {"ia3": "failed: KeyError: a"}, 1),
        ({"vllm": WORKS}, {"vllm": "refused: why"}, 1),
        ({"vllm": WORKS}, {"vllm": f"{BREAKS}: KeyError: a"}, 1),
        ({"vllm": f"{WORKS}, {BY_TRANSFORMERS}"}, {"vllm": NOT_THERE}, 1),
        ({"vllm": f"{WORKS}; {OTHERWISE}"}, {"vllm": NOT_TRIED}, 1),
        ({"vllm": "refused: why"}, {"vllm": WRONG}, 1),
        ({"vllm": WORKS}, {"vllm": f"{WORKS}, {BY_TRANSFORMERS}"}, 0),
        ({"vllm": f"{BREAKS}: KeyError: a"}, {"vllm": NOT_THERE}, 0),
        ({"vllm": NOT_TRIED}, {"vllm": WORKS}, 0),
        # Less of what was found.
        ({"mlp": "`mlp.shared.down_proj`, `mlp.experts`"}, {"mlp": "`mlp.shared.down_proj`"}, 1),
        ({"mlp": "`mlp.experts`"}, {"mlp": "`mlp.shared.down_proj`, `mlp.experts`"}, 0),
        ({"mlp": "`fc2`"}, {"mlp": "`fc2` (in 2 of 4 layers)"}, 1),
        ({"mlp": "`fc2` (in 3 of 4 layers)"}, {"mlp": "`fc2` (in 2 of 4 layers)"}, 1),
        ({"mlp": "`fc2` (in 2 of 4 layers)"}, {"mlp": "`fc2`"}, 0),
        ({"attn": "`o_proj`"}, {"attn": "`o_proj` (in 2 of 4 layers)"}, 1),
        ({"mlp": "by pattern: `*.fc2`, here `a.fc2`, `b.fc2`"}, {"mlp": "by pattern: `*.fc2`, here `b.fc2`"}, 1),
        ({"mlp": "by pattern: `*.fc2`, here `a.fc2`"}, {"mlp": "`b.fc2`"}, 0),
    ],
)
def test_what_is_worse(before: dict[str, str], now: dict[str, str], found: int) -> None:
    a, b = (FamilyTrial("x", **{"mlp": "`fc2`", **cells}) for cells in (before, now))
    assert len(worse(a, b)) == found


@pytest.mark.skipif(transformers.__version__ < "5", reason="these tiny models are of transformers 5")
def test_a_wrong_path_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a rule lets pass what is not exact, the row says so."""
    monkeypatch.setattr("lm_eval_clas.families.family_trial.can_resume", lambda *_: True)
    assert try_family("gemma3n_text").resumable.startswith("failed: KeyError")
    monkeypatch.setattr("lm_eval_clas.families.family_trial.merged", _nothing)
    assert try_family("llama").same == WRONG


def _raise(*_: object, **__: object) -> None:
    raise KeyError("something of the family's own")


@pytest.mark.parametrize(("name", "cell"), [("find_projections", "mlp"), ("merged", "same"), ("adapter_files", "ia3")])
def test_an_error_of_one_family_is_a_cell(name: str, cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody loses the rows of all others by it."""
    monkeypatch.setattr(f"lm_eval_clas.families.family_trial.{name}", _raise)
    trial = try_family("llama")
    assert getattr(trial, cell).startswith("failed: KeyError")
    assert worse(FamilyTrial("llama", "`mlp.down_proj`", same=YES, ia3=YES), trial)
    assert "failed: 1;" in totals([trial])


def test_an_adapter_that_steers_otherwise_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")

    def off(scaling: Scaling, model: Outline) -> dict[str, bytes]:
        return adapter_files(replace(scaling, done=Intervention(scaling.done.factors * 0.5)), model)

    assert try_family("llama").ia3 == YES
    monkeypatch.setattr("lm_eval_clas.families.family_trial.adapter_files", off)
    assert try_family("llama").ia3 == WRONG


@pytest.mark.skipif(transformers.__version__ < "5", reason="these tiny models are of transformers 5")
@pytest.mark.parametrize("family", ["llama4_text", "axk2"])
def test_what_a_pattern_steers_beside_experts_is_named(family: str) -> None:
    if family not in decoder_families():
        pytest.skip("this version of transformers does not have the family")
    cell = try_family(family).mlp
    assert re.fullmatch(r"by pattern: `\*\.down_proj`, here .*`[a-z_.]+\.down_proj`; its experts are not steered", cell)


def _nothing(*_: object):
    from contextlib import nullcontext

    return nullcontext()


def test_tiny_models_are_tiny_and_seeded() -> None:
    one, other = tiny_model("llama"), tiny_model("llama")
    assert sum(parameter.numel() for parameter in one.parameters()) < 100_000
    assert all((a == b).all() for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("family", ["llama", "bloom"])  # the default of the second is narrower than asked, with more heads
def test_tiny_models_can_be_as_wide_as_an_engine_wants_them(family: str) -> None:
    config = tiny_model(family, widths=Widths(hidden=128, neurons=512, head=32, rotary=16)).config
    assert config.hidden_size // config.num_attention_heads == 32  # type: ignore[union-attr, operator]


def test_a_tiny_configuration_of_unlike_layers_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Gemma 4 says something of its 30th layer."""
    if "gemma4_text" not in decoder_families():
        pytest.skip("this version of transformers does not have the family")
    tiny_model("gemma4_text").config.save_pretrained(tmp_path)  # type: ignore[union-attr, operator]
    assert transformers.AutoConfig.from_pretrained(tmp_path).num_hidden_layers == LAYERS
