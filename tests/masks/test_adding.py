"""A language added from plain text: it is profiled as any other, known, routed and steered; for the others nothing changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lm_eval.api.instance import Instance
from small_models import Run, make_model
from transformers import PreTrainedTokenizerFast

from lm_eval_clas import CLASLM, ActivationSteerer, ClasError, MaskSet, NeuronCategorizer, Profile, profile
from lm_eval_clas.masks.adding import MonolingualText, add_language
from lm_eval_clas.masks.inspection import summary
from lm_eval_clas.masks.lape import LapeSelector, with_lape
from lm_eval_clas.texts.corpora import ParallelTexts

LINES = (
    "Runasimi Qullasuyupi rimasqa simim.",
    "Kay llaqtapi achka runakuna tiyanku, paykunaqa papata tarpunku.",
    "Inti punchawta kanchan.",
)


@pytest.fixture(scope="session")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as users have them: empty lines, spaces, and line ends of another system."""
    file = tmp_path_factory.mktemp("texts") / "quechua.txt"
    file.write_bytes(f"\ufeff{LINES[0]}\r\n\r\n  {LINES[1]}\n{LINES[2]}\n\n".encode())
    return file


@pytest.fixture(scope="module")
def kept(profiled: Profile) -> MaskSet:
    categorizer = NeuronCategorizer(threshold=0.005)
    return MaskSet.from_profile(profiled, categorizer=categorizer, bridge="2-4", keep_means=True)


@pytest.fixture(scope="module")
def added(kept: MaskSet, path: Path, tokenizer: PreTrainedTokenizerFast) -> MaskSet:
    return add_language(kept, make_model(), tokenizer, MonolingualText.parse(f"quy={path}"))


@pytest.fixture(scope="module")
def direct(tokenizer: PreTrainedTokenizerFast) -> Profile:
    """The added language's profile by itself, with the settings of the others."""
    texts = ParallelTexts("quechua", ("0", "1", "2"), {"quy": LINES})
    return profile(make_model(), tokenizer, texts, max_tokens=200)


def test_text_is_read_as_users_have_it(path: Path) -> None:
    text = MonolingualText.parse(f"quy={path}")
    assert (text.language, text.lines) == ("quy", LINES)


def test_the_language_is_profiled_as_any_other(added: MaskSet, direct: Profile) -> None:
    mean = direct.mean("signed-mean", "all")[0]
    assert added.means is not None
    assert np.array_equal(added.means[added.index("quy")], mean)
    assert np.array_equal(added.active_in("quy"), mean > 0.005)
    one = added.config.added["quy"]
    assert (one.file, one.samples, one.tokens) == ("quechua.txt", 3, direct.by_language["quy"].counts["all"])


def test_texts_are_cut_where_the_others_were(kept: MaskSet, path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    assert kept.config.corpus.max_tokens == 200
    corpus = kept.config.corpus.model_copy(update={"max_tokens": 10})
    short = MaskSet(kept.config.model_copy(update={"corpus": corpus}), kept.active)
    made = add_language(short, make_model(), tokenizer, MonolingualText.parse(f"quy={path}"))
    assert made.config.added["quy"].tokens == 3 * 9  # without BOS


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 1.5},
        {"specific_scope": "own"},
        {"partial_scope": "own"},
        {"partial_scope": "anchor"},
        {"method": "uniform"},
        {"method": "random", "seed": 3},
        {"method": "int-mu"},
    ],
)
def test_nothing_changes_for_the_others(kept: MaskSet, added: MaskSet, options: dict[str, Any]) -> None:
    assert added.languages == (*kept.languages, "quy")
    assert added.counted == kept.languages
    assert np.array_equal(added.active[:-1], kept.active)
    assert np.array_equal(added.categories, kept.categories)
    assert added.bridge_layers == kept.bridge_layers
    assert added.hash != kept.hash
    before, after = (ActivationSteerer(make_model(), masks, **options) for masks in (kept, added))
    for language in (*kept.languages, *([] if "method" in options or "partial_scope" in options else [None])):
        assert torch.equal(after.factors(language), before.factors(language))
        one, other = after.shifts(language), before.shifts(language)
        assert (one is None and other is None) or torch.equal(one, other)


def test_it_has_neurons_of_its_own(added: MaskSet) -> None:
    own = added.specific_in("quy")
    assert own.any()
    for layer, neuron in zip(*np.nonzero(own), strict=True):
        active = [language for language in added.languages if added.active_in(language)[layer, neuron]]
        assert active == ["quy"]
    assert not (own & (added.specific | added.partial)).any()

    def changed(**options: Any) -> np.ndarray:
        return (ActivationSteerer(make_model(), added, **options).factors("quy") != 1).numpy()

    inside = np.zeros_like(own)
    inside[list(added.bridge_layers)] = True
    active, english = added.active_in("quy"), added.active_in("en")
    assert np.array_equal(changed(), inside & (added.partial | added.specific | own))
    assert np.array_equal(changed(specific_scope="own"), inside & (added.partial | own))
    assert np.array_equal(changed(partial_scope="own"), inside & (added.partial & active | added.specific | own))
    assert np.array_equal(changed(partial_scope="anchor"), inside & (added.partial & active & english | added.specific | own))
    assert np.array_equal(changed(method="int-mu"), inside & own)


def test_the_folder_keeps_it(added: MaskSet, tmp_path: Path) -> None:
    again = MaskSet.load(added.save(tmp_path / "masks"))
    assert (again.languages, again.counted, again.hash) == (added.languages, added.counted, added.hash)
    assert again.config.added == added.config.added
    assert np.array_equal(again.categories, added.categories)
    assert json.loads(json.dumps(summary(again)))["added"]["quy"]["samples"] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"added": {"fr": {"file": "x", "sha256": "x", "samples": 1, "tokens": 1}}},
            "added languages that it does not have: fr",
        ),
        ({"anchor": "quy"}, "the anchor 'quy' is an added language"),
        ({"added": {"quy": {"file": "x"}}}, "is damaged: added.quy.sha256"),
    ],
)
def test_a_damaged_configuration_is_refused(added: MaskSet, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = added.save(tmp_path / "masks") / "clas_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ClasError, match=message):
        MaskSet.load(tmp_path / "masks")


def test_its_requests_are_routed_and_steered(kept: MaskSet, added: MaskSet, tokenizer: PreTrainedTokenizerFast) -> None:
    asked = [Instance("loglikelihood", {}, (LINES[0], " ari"), 0, ("americas_nli_quy_Latn", 0, 1))]
    plain, left_alone, steered = (
        CLASLM(make_model(), masks=masks, tokenizer=tokenizer, batch_size=1, alpha=alpha)
        for masks, alpha in ((kept, 0), (kept, 3), (added, 3))
    )
    assert left_alone.loglikelihood(asked) == plain.loglikelihood(asked)
    assert left_alone.steering_info()["left_alone"] == {"quy": "not in the masks"}
    assert steered.loglikelihood(asked) != plain.loglikelihood(asked)
    assert steered.steering_info()["languages"] == {"quy": {"requests": 1, "recognized": {"task name": 1}}}
    assert not steered.steering_info()["left_alone"]


def test_with_lape_it_owns_what_is_above_the_bar(
    masks: MaskSet, profiled: Profile, direct: Profile, path: Path, tokenizer: PreTrainedTokenizerFast
) -> None:
    lape = with_lape(masks, profiled, LapeSelector(0.3, 0.7))
    made = add_language(lape, make_model(), tokenizer, MonolingualText.parse(f"quy={path}"))
    assert made.owned is not None
    assert lape.owned is not None
    assert np.array_equal(made.owned[:-1], lape.owned)
    assert np.array_equal(made.specific, lape.specific)
    bar = lape.config.specific.bar
    assert np.array_equal(made.specific_in("quy"), lape.specific & (direct.mean("share-positive", "all")[0] > bar))
    assert made.specific_in("quy").any()


def test_slips_are_one_sentence(kept: MaskSet, path: Path, tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    for text, message in [
        ("quy", "must be a language code and a file, like quy=FILE.txt"),
        ("klingonish!=x.txt", "must be a language code and a file"),
        (f"quy={tmp_path / 'empty.txt'}", "holds no text"),
        (f"quy={tmp_path / 'nowhere.txt'}", "cannot be read as UTF-8 text"),
    ]:
        with pytest.raises(ClasError, match=message):
            MonolingualText.parse(text)
    with pytest.raises(ClasError, match="have 'hi' already"):
        add_language(kept, make_model(), tokenizer, MonolingualText.parse(f"hin={path}"))
    with pytest.raises(ClasError, match="made for another model"):
        add_language(kept, make_model("qwen2"), tokenizer, MonolingualText.parse(f"quy={path}"))


def test_from_the_command_line(
    clas: Run, profile_folder: Path, checkpoint: Path, path: Path, tmp_path: Path
) -> None:  # fmt: skip
    bridge = ("--bridge", "2-4", "--keep-means")
    add = ("--add-language", f"quy={path}", "--model", checkpoint, "--device", "cpu")
    code, text, error = clas("masks", profile_folder, "--out", tmp_path / "both", *bridge, *add)
    assert code == 0, error
    assert "quy; not counted in categories" in text
    both = MaskSet.load(tmp_path / "both")
    assert both.languages == ("en", "hi", "de", "quy")
    assert both.config.corpus.max_tokens == 60
    assert clas("masks", profile_folder, "--out", tmp_path / "before", *bridge)[0] == 0
    before = MaskSet.load(tmp_path / "before")
    code, _, error = clas("masks", tmp_path / "before", "--out", tmp_path / "later", *add)  # a mask folder will do
    assert code == 0, error
    later = MaskSet.load(tmp_path / "later")
    assert later.hash == both.hash
    assert np.array_equal(later.means, both.means)
    assert np.array_equal(later.active[:-1], before.active)
    for arguments, message in [
        ((profile_folder, *add[:2]), "give the model that was profiled, with --model"),
        ((profile_folder, "--model", checkpoint), "--model needs --add-language"),
        ((tmp_path / "before", *add, "--threshold", "1"), "--threshold needs a profile"),
        ((tmp_path / "later", *add), "The masks have 'quy' already"),
        ((tmp_path / "before",), "is not a profile"),
    ]:
        code, _, error = clas("masks", *arguments, "--out", tmp_path / "other")
        assert code == 2
        assert message in error.replace("\n", " ")
