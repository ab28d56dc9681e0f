"""What plans take from the file of known sizes is what the data, the tasks and the models' own numbers say."""

from __future__ import annotations

from statistics import mean

import pytest
from hub_data import XNLI, XQUAD

from lm_eval_clas.disk.files import shipped
from lm_eval_clas.evidence.cluster_fields import clustered_alike
from lm_eval_clas.harness.task_loading import load_tasks
from lm_eval_clas.harness.task_routes import Steerable, find_tasks, route_by_name
from lm_eval_clas.languages.macrolanguages import as_known
from lm_eval_clas.languages.task_index import read_index
from lm_eval_clas.study.plan.known_sizes import known_sizes
from lm_eval_clas.study.plan.model_shapes import planned_model
from lm_eval_clas.study.recipe import StudyRecipe, shipped_recipes
from lm_eval_clas.texts.corpora import XNLI_LANGUAGES, ParallelInputBuilder


@pytest.mark.parametrize(
    "task",
    [
        "clas_mini_qa_hi",
        "clas_mini_nli_sw",
        pytest.param("clas_xquad_hi", marks=pytest.mark.hub_data(XQUAD)),
        pytest.param("clas_xquad_tune_zh", marks=pytest.mark.hub_data(XQUAD)),
        pytest.param("clas_xnli_dev_hi", marks=pytest.mark.hub_data(XNLI)),
        pytest.param("clas_xnli_tune_sw", marks=pytest.mark.hub_data(XNLI)),
    ],
)
def test_counts_on_file_are_those_of_the_data(task: str) -> None:
    loaded = load_tasks([task], [str(shipped("tasks"))])[task]
    ((family, _, known),), unknown = known_sizes().find([task])
    documents = list(loaded.eval_docs)
    assert not unknown
    assert known.items == len(documents)
    assert family.generates == (loaded.OUTPUT_TYPE == "generate_until")
    assert family.fields is not None
    assert set(family.fields) == set(documents[0])
    prompts = dict.fromkeys(loaded.doc_to_text(document) for document in documents)
    assert known.prompt == pytest.approx(mean(map(len, prompts)), abs=0.1)
    (together,) = clustered_alike([(task, documents)], "cluster" if "cluster" in documents[0] else "none")
    sizes = [size for size, count in family.clusters or [(1, known.items)] for _ in range(count)]
    assert sizes == together.clusters.sizes.tolist()
    assert 0 < known.run <= 1
    assert known.choices == (1 if family.generates else 3)


@pytest.mark.parametrize(
    "corpus",
    [
        "mini",
        pytest.param("xquad", marks=pytest.mark.hub_data(XQUAD)),
        pytest.param("xnli", marks=pytest.mark.hub_data(XNLI)),
    ],
)
def test_corpora_on_file_are_those_of_the_data(corpus: str) -> None:
    texts = ParallelInputBuilder(corpus, ["en", "hi"], None).build()
    known = known_sizes().corpora[corpus]
    assert known.items == len(texts.ids)
    for language, lines in texts.texts.items():
        assert known.characters[language] == pytest.approx(mean(map(len, lines)), abs=0.1)


def test_the_test_split_of_xnli_is_planned_as_the_dev_rows_but_for_its_items() -> None:
    families = known_sizes().families
    assert {task.items for task in families["clas_xnli"].tasks.values()} == {5010}
    assert families["clas_xnli"].clusters == [(3, 1670)]
    assert families["clas_xnli"].tasks["clas_xnli_hi"].prompt == families["clas_xnli_dev"].tasks["clas_xnli_dev_hi"].prompt


def test_parameters_on_file_are_those_of_the_shapes() -> None:
    models = known_sizes().models
    for name, norms, biases in (("meta-llama/Llama-3.1-8B", 2, 0), ("Qwen/Qwen2.5-7B", 2, 1), ("google/gemma-3-270m", 4, 0)):
        one = models[name].shape
        hidden, keys = one.hidden_size, one.kv_heads * one.head_size
        queries = 4 * 256 if "gemma" in name else hidden
        attention = 2 * hidden * queries + 2 * hidden * keys + biases * (queries + 2 * keys)
        small = norms * hidden + (2 * one.head_size if "gemma" in name else 0)
        layers = one.layers * (attention + 3 * hidden * one.neurons + small)
        assert layers + one.in_output * (1 if one.tied else 2) + hidden == one.parameters, name
        assert one.in_layers == layers + hidden


@pytest.mark.parametrize("name", shipped_recipes())
def test_everything_in_a_shipped_recipe_is_on_file(name: str) -> None:
    recipe, sizes = StudyRecipe.load(name), known_sizes()
    model = planned_model(recipe)
    assert model.shape is not None
    assert model.tokenizer in sizes.tokenizers
    for part in recipe.parts.values():
        assert part.corpus in sizes.corpora
        assert sizes.find([*part.tune, *part.evaluate])[1] == []


@pytest.mark.parametrize("name", ["llama-3.1-8b-wide", "qwen-2.5-7b-wide"])
def test_every_task_of_a_wide_recipe_gets_the_language_on_file_and_is_steered(name: str) -> None:
    index, steerable = read_index([shipped("tasks")]), Steerable(XNLI_LANGUAGES, "en")
    for part in StudyRecipe.load(name).parts.values():
        assert part.corpus == "xnli"
        planned = known_sizes().find(part.evaluate)[0]
        languages = {task: known.language for _, called, known in planned for task in find_tasks([called], index)}
        assert len(languages) >= len(planned)
        for route in route_by_name(languages, index, steerable, "target"):
            assert route.language is not None
            assert as_known(route.language, XNLI_LANGUAGES) == languages[route.task], route
            assert route.steered == (languages[route.task] != "en"), route
