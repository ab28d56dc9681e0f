"""Cards: a licence is named for our corpora alone, names mean nothing but themselves, and what a person wrote stays."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from exporting import made_masks, small_model
from huggingface_hub.repocard_data import model_index_to_eval_results
from markdown_it import MarkdownIt
from strengths_made import with_strengths

from lm_eval_clas import ClasError, MaskSet, ParallelInputBuilder
from lm_eval_clas.decoder.projections import find_projections
from lm_eval_clas.export.card_blocks import card, find_block
from lm_eval_clas.export.cards import export_card, masks_card
from lm_eval_clas.export.licences import terms
from lm_eval_clas.export.outline import Outline, scalings
from lm_eval_clas.masks.mask_config import AddedLanguage, CorpusSource
from lm_eval_clas.masks.strengths import TriedSetting, TunedStrength

END = "<!-- lm-eval-clas end -->"
NASTY = f"a`b|c</td>*d*\n{END}\n---\nlicense: mit\n```\n# Title\n![x](http://evil) <script>$(rm) \"' \\ ${{x}} \u202e&lt; -->"


@pytest.fixture(scope="module")
def masks() -> MaskSet:
    return with_corpus(made_masks(small_model("llama")), name="own/")


def with_corpus(masks: MaskSet, **values: Any) -> MaskSet:
    corpus = CorpusSource(**{**masks.config.corpus.model_dump(), **values})
    return MaskSet(masks.config.model_copy(update={"corpus": corpus}), masks.active)


def source_of(corpus: str, samples: int | None = None, half: Any = None) -> CorpusSource:
    texts = ParallelInputBuilder(corpus, ["en", "hi"], samples, half).build()
    return CorpusSource(name=texts.name, sha256=texts.sha256(), samples=len(texts.ids), tokens={"en": 1, "hi": 1})


@pytest.mark.parametrize("name", ["mini", "xnli", "xquad", "mini, first half", "xquad, first half"])
def test_texts_of_a_user_are_never_ours(name: str, masks: MaskSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    folder.mkdir()
    for language in ("en", "hi"):
        (folder / f"{language}.txt").write_text("private one\nprivate two\n")
    (tmp_path / f"{name}.jsonl").write_text(
        "\n".join(f'{{"id": "{i}", "language": "{one}", "text": "private"}}' for i in (1, 2) for one in ("en", "hi"))
    )
    monkeypatch.chdir(tmp_path)
    places = [folder, f"./{name}", f"{name}/", f"{name}.jsonl", *([name] if "," in name else [])]
    found = [source_of(str(place), half=half) for place in places for half in (None, "first")]
    monkeypatch.chdir(folder)
    found.append(source_of("."))
    for corpus in found:
        assert terms(corpus) is None, corpus.name
        text = masks_card(with_corpus(masks, **corpus.model_dump()), "user/name")
        assert "license" not in yaml.safe_load(text.split("---\n")[1])
        assert "whoever pushed it knows their licence" in text


@pytest.mark.parametrize(("samples", "half"), [(None, None), (5, None), (7, "first"), (7, "second"), (None, "second")])
def test_the_corpus_that_ships_is_known_by_its_texts(samples: int | None, half: Any) -> None:
    corpus = source_of("mini", samples, half)
    found = terms(corpus)
    assert found is not None
    assert found.code == "apache-2.0"
    for change in ({"sha256": "0" * 64}, {"samples": corpus.samples + 1}, {"tokens": {"en": 1, "de": 1}}):
        assert terms(corpus.model_copy(update=change)) is None


def test_older_folders_are_told_apart_by_what_is_known_of_a_corpus() -> None:
    corpus = CorpusSource(name="xquad", sha256="0" * 64, samples=100, tokens={"en": 1, "hi": 1})
    assert terms(corpus) is not None
    for change in (
        {"samples": 112},  # more than XQuAD has to profile
        {"tokens": {"en": 1, "sw": 1}},  # a language that it does not have
        {"sha256": f"{'0' * 64}+{'1' * 64}"},  # merged with something
        {"name": "xquad, other half"},
        {"name": "XQuAD"},
    ):
        assert terms(corpus.model_copy(update=change)) is None


def hostile_masks(masks: MaskSet, field: str) -> MaskSet:
    """The masks with a nasty text in one field of their configuration."""
    config = masks.config
    measured = TriedSetting(alpha=1, beta=0.4, gamma=0.2, layers=[3], score=1, gain=0, low=0, high=0)
    strength = TunedStrength(
        chosen=measured, best=measured, p_value=1, objective="metric", metric="acc", guarded=False, shared=False,
        tasks=["t"], items=1, items_sha256="0" * 64, measured=[measured],
    )  # fmt: skip
    update: dict[str, Any] = {
        "model.name": {"model": config.model.model_copy(update={"name": NASTY})},
        "model.revision": {"model": config.model.model_copy(update={"revision": NASTY})},
        "model_type": {
            "model": config.model.model_copy(
                update={"fingerprint": config.model.fingerprint.model_copy(update={"model_type": NASTY})}
            )
        },
        "corpus.name": {"corpus": config.corpus.model_copy(update={"name": NASTY})},
        "corpus.sha256": {"corpus": config.corpus.model_copy(update={"sha256": NASTY})},
        "bridge_rule": {"bridge_rule": NASTY},
        "date": {"date": NASTY},
        "package_version": {"package_version": NASTY},
        "tuned": {"tuned": {NASTY: {"hi": strength}}},
        "added": {"added": {"de": AddedLanguage(file=NASTY, sha256=NASTY, samples=1, tokens=1)}},
    }[field]
    return MaskSet(config.model_copy(update=update), masks.active)


def require_harmless(text: str, plain: str) -> None:
    """The card has the same structure as one without nasty texts, and its block ends where it should."""
    assert text.count(END) == 1
    assert text.count("<!-- lm-eval-clas begin") == 1
    block = find_block(text)
    assert block is not None
    assert block.intact
    front = yaml.safe_load(plain.split("---\n")[1])
    front.pop("model-index", None)  # nothing of a task with such a name is in there
    assert yaml.safe_load(text.split("---\n")[1]) == front
    parser = MarkdownIt("commonmark").enable("table")
    shapes = []
    for one in (text, plain):
        tokens = parser.parse(one.split("---\n", 2)[2])
        inline = [child.type for token in tokens for child in token.children or [] if child.type in ("image", "link_open")]
        assert {child.content for token in tokens for child in token.children or [] if child.type == "html_inline"} <= {
            "<code>", "</code>"
        }  # fmt: skip
        shapes.append(([token.type for token in tokens], inline))
    assert shapes[0] == shapes[1]


FIELDS = (
    "model.name", "model.revision", "model_type", "corpus.name", "corpus.sha256", "bridge_rule", "date", "package_version",
    "tuned", "added",
)  # fmt: skip


@pytest.mark.parametrize("field", FIELDS)
def test_hostile_names_in_a_card_of_masks(field: str, masks: MaskSet) -> None:
    hostile = hostile_masks(masks, field)
    plain = with_corpus(hostile, name="c", sha256="0" * 64)
    config = plain.config.model_copy(
        update={
            "model": hostile.config.model.model_copy(
                update={
                    "name": "n",
                    "revision": hostile.config.model.revision and "r",
                    "fingerprint": masks.config.model.fingerprint,
                }
            ),
            "bridge_rule": "b", "date": "d", "package_version": "v",
            "tuned": dict(zip("t", hostile.config.tuned.values(), strict=False)),
        }
    )  # fmt: skip
    text = masks_card(hostile, "user/name")
    require_harmless(text, masks_card(MaskSet(config, masks.active), "user/name"))
    if field == "model.name":
        command = text.split("```bash\n")[1].split("```")[0].replace("\\\n", " ")
        assert "pretrained=" in next(line for line in command.splitlines() if "--model_args" in line)
        assert "$'" in command  # quoted for bash: nothing in it is run
        python = text.split("```python\n")[1].split("```")[0]
        compile(python, "card", "exec")


def test_hostile_names_in_a_command_are_one_word(masks: MaskSet) -> None:
    name = 'it\'s $(rm) `x` & "y"'
    config = masks.config.model_copy(update={"model": masks.config.model.model_copy(update={"name": name})})
    text = masks_card(MaskSet(config, masks.active), "user/name")
    command = text.split("```bash\n")[1].split("```")[0].replace("\\\n", " ")
    assert f"pretrained={name},masks=user/name,alpha=1.0" in shlex.split(command)


@pytest.mark.parametrize("kind", ["ia3", "merged"])
@pytest.mark.parametrize("field", ["base", "masks", "task", "corpus"])
def test_hostile_names_in_a_card_of_an_export(kind: str, field: str, masks: MaskSet) -> None:
    from dataclasses import replace

    (scaling,), _ = scalings(masks, ["hi"], alpha=1)
    model = small_model("llama")

    def made(name: str) -> str:
        one = replace(scaling, task=name) if field == "task" else scaling
        used = masks
        if field == "masks":
            used = MaskSet(
                masks.config.model_copy(update={"model": masks.config.model.model_copy(update={"name": name})}), masks.active
            )
        if field == "corpus":
            used = with_corpus(masks, name=name)
        outline = Outline(name if field == "base" else "b", None, model.config, find_projections(model), model)
        return export_card(one, used, outline, kind)

    require_harmless(made(NASTY), made("n"))


def test_what_a_person_wrote_stays_when_a_card_is_written_again() -> None:
    first = card({"language": ["hi"], "license": "apache-2.0", "tags": ["clas"]}, "Old.\n", {})
    edited = (
        first.replace("---\n\n<!--", "---\n\nBefore, with spaces.  \r\n\n<!--")
        .replace("language:\n", "# A remark.\nlanguage:\n- no  # Norwegian\n")
        .replace("---\n\nB", "extra: {a: 1,\n  b: [yes, 012]}\nlicense_name: mine\n---\n\nB")
        + "\nAfter.\n"
    )
    again = card({"language": ["de", "hi"], "tags": ["clas", "new"], "base_model": "a/b"}, "New.\n", {"x": "1"}, edited)
    front, rest = re.match(r"---\n(.*?)---\n(.*)", again, re.DOTALL).groups()  # type: ignore[union-attr]
    assert "# A remark.\nlanguage:\n- no  # Norwegian\n- hi\n- de\n" in front
    assert "extra: {a: 1,\n  b: [yes, 012]}\nlicense_name: mine\n" in front
    assert "tags:\n- clas\n- new\n" in front
    assert "base_model: a/b\n" in front
    assert "license: apache" not in front  # ours, and no longer said
    assert rest.startswith("\nBefore, with spaces.  \r\n\n<!--")
    assert rest.endswith(f"New.\n{END}\n\nAfter.\n")
    assert "Old." not in again
    assert card({"language": ["de", "hi"], "tags": ["clas", "new"], "base_model": "a/b"}, "New.\n", {"x": "1"}, again) == again


def test_what_a_person_says_of_a_key_wins() -> None:
    before = "---\nlicense: other\nlanguage: en\ntags: [mine, clas]\n---\n# Mine\n"
    text = card({"license": "apache-2.0", "language": ["hi"], "tags": ["clas", "x"]}, "Ours.\n", {}, before)
    assert yaml.safe_load(text.split("---\n")[1]) == {
        "license": "other",
        "language": ["en", "hi"],
        "tags": ["mine", "clas", "x"],
    }
    assert "---\n\n# Mine\n" in text.replace("---\n# Mine", "---\n\n# Mine")
    assert text.index("# Mine") < text.index("Ours.")


def test_cards_without_metadata_and_with_broken_ones() -> None:
    text = card({"license": "mit"}, "Ours.\n", {}, "Just text")
    assert text.startswith("---\nlicense: mit\n---\n\nJust text\n\n<!--")
    with pytest.raises(ClasError, match=r"in front of 'x/README\.md' cannot be read"):
        card({"license": "mit"}, "Ours.\n", {}, "---\na: [b\n---\nText\n", "x/README.md")
    edited = card({}, "Ours.\n", {}).replace("Ours.", "Theirs.")
    block = find_block(edited)
    assert block is not None
    assert not block.intact
    assert find_block("<!-- lm-eval-clas end -->\n") is None


def test_line_ends_that_another_program_changed() -> None:
    first = card({"language": ["hi"], "license": "mit"}, "One.\nTwo.\n", {})
    theirs = first.replace("\n", "\r\n") + "\r\nMine.\r\n"
    block = find_block(theirs)
    assert block is not None
    assert block.intact
    again = card({"language": ["hi", "de"], "license": "mit"}, "Three.\n", {}, theirs)
    assert again.endswith(f"Three.\n{END}\n\r\nMine.\r\n")
    assert "Two." not in again
    assert yaml.safe_load(again.split("---\n")[1]) == {"language": ["hi", "de"], "license": "mit"}


def test_several_blocks_and_half_ones() -> None:
    """The first whole block is ours; a beginning without an end, or an end alone, is text like any other."""
    one = card({}, "One.\n", {})
    begin = one.splitlines()[0]
    before = f"{begin}\nno end\n\n{one}\n{END}\n{one}"
    again = card({}, "Two.\n", {}, before)
    assert again.startswith(f"{begin}\nno end\n\n<!-- lm-eval-clas begin")
    assert again.endswith(f"Two.\n{END}\n\n{END}\n{one}")
    assert again.count("One.") == 1


def test_the_hub_shows_what_was_tuned_by_metric(masks: MaskSet) -> None:
    tuned = with_strengths(masks, {"clas_xquad": {"hi": -2.0}})
    front = yaml.safe_load(masks_card(tuned, "user/name").split("---\n")[1])
    (model,) = front["model-index"]
    name, (result,) = model_index_to_eval_results([model])
    assert (name, result.dataset_type, result.metric_type, result.metric_value) == ("user/name", "clas_xquad", "acc", 0.5)
    assert result.dataset_name == "XQuAD (Hindi), 1 tuning items"
    assert result.metric_name == "accuracy, alpha -2 (+0 over 0.5 at alpha 0)"
    assert "model-index" not in yaml.safe_load(masks_card(masks, "user/name").split("---\n")[1])
