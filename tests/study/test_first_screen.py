"""The first screen of a report: its headline, and a sentence a task, say what intervals support and no more."""

from __future__ import annotations

import re

import pytest
from judged_comparisons import comparison, with_leads

from lm_eval_clas.comparing.rows import Comparison, Row
from lm_eval_clas.study.report.first_screen import below_the_headline, smallest_seen, task_sentence
from lm_eval_clas.study.report.plots import limits_of
from lm_eval_clas.study.report.score_sections import gain_panels
from lm_eval_clas.study.report.statements import first_minute
from lm_eval_clas.study.report.verdicts import against_controls, by_task, primary_of, told_by_language


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.1, 0.9, "On XNLI (accuracy), CLAS gains 0.50 points (0.10 to 0.90; 2 of 2 languages steered, none signif"),
        (0.1, 0.9, "none significantly better), and was tested against no control."),
        (-0.9, -0.1, "CLAS loses 0.50 points (0.10 to 0.90; 2 of 2 languages steered, none significantly worse)"),
        (-0.1, 0.9, "CLAS is not shown to help or to hurt (+0.50 points, \u22120.10 to +0.90; 2 of 2 languages steered)"),
        (0.0, 0.9, "CLAS is not shown to help or to hurt"),
        (None, None, "CLAS has no interval of its average gain"),
    ],
)
def test_a_tasks_sentence_follows_the_interval(low: float | None, high: float | None, words: str) -> None:
    gain = -0.5 if (high or 0) < 0 else 0.5
    assert words in task_sentence(comparison(gain, low, high), [])


def test_where_lower_is_better_a_gain_is_a_loss() -> None:
    made = comparison(0.5, 0.1, 0.9, uniform=0.75).model_copy(update={"higher_is_better": False})
    assert "(lower is better), CLAS loses 0.50 points (0.10 to 0.90; 2 of 2" in task_sentence(made, [])
    assert "ahead of it by 0.25" in " ".join(against_controls(made))


def still(made: Comparison) -> Row:
    """The judged row of a comparison, in which no score has moved."""
    row = primary_of(made)
    assert row is not None
    for code, cell in row.cells.items():
        row.cells[code] = cell.model_copy(update={"gain": 0.0, "p_value": 1.0, "p_holm": None if code == "en" else 1.0})
    return row


def test_a_score_that_does_not_move_does_not_say_that_nothing_changes() -> None:
    """Answers in no language at all, steered and unsteered, may be right ones and rubbish."""
    made = comparison(0.0, 0.0, 0.0)
    row = still(made)
    assert task_sentence(made, []) == (
        "On XNLI (accuracy), CLAS (2 of 2 languages steered) has the score of the unsteered model in every language, which "
        "does not say that the answers are the same."
    )
    row.steering["tuned"] = {"clas_xnli": {"hi": {"alpha": 0.0}, "de": {"alpha": 0.0}}}
    assert task_sentence(made, []) == "On XNLI (accuracy), CLAS was kept at strength 0 in every language."
    assert told_by_language(made, row) == "clas steered no language."
    row.steering["left_alone"] = {"hi": "not in the masks", "de": "not in the masks"}
    assert task_sentence(made, []) == "On XNLI (accuracy), CLAS was kept out of every language (not in the masks)."


def test_other_methods_that_steer_nothing_are_said_to() -> None:
    made = comparison(0.5, 0.1, 0.9)
    idle = {"tuned": {"clas_xnli": {"hi": {"alpha": 0.0}, "de": {"alpha": 0.0}}}}
    few = {"tuned": {"clas_xnli": {"hi": {"alpha": 0.0}, "de": {"alpha": 1.0}}}}
    for label, steering in (("diffmean", idle), ("incline", idle), ("int-mu", few)):
        row = Row(label=label, kind="method", cells=made.rows[1].cells, gain=0.0, low=-0.1, high=0.1)
        made.rows.append(row.model_copy(update={"steering": {"method": label, **steering}}))
    sentence = task_sentence(made, [])
    assert sentence.endswith(
        "no gain or loss is shown for Int-mu (1 of 2 languages steered); DiffMean and INCLINE were kept at strength 0 in every "
        "language."
    )


@pytest.mark.parametrize(
    ("gain", "uniform", "random", "words"),
    [
        (1.0, 0.9, 0.7, ", beyond the uniform gain control and the random masks control."),
        (1.0, 0.9, 0.2, ", and shows nothing beyond the random masks control."),
        (-1.2, 0.9, 1.8, ", less than the uniform gain control and the random masks control do."),
        (-1.2, 0.9, None, ", less than the uniform gain control does."),
        (-1.2, 0.9, 0.2, ", and is not told apart from the random masks control."),
        (-1.2, 0.9, -0.8, ", and is behind the random masks control by 0.80 points (0.30 to 1.30)."),
        (0.1, 0.9, 0.7, ", and is ahead of the uniform gain control and the random masks control."),
        (0.1, 0.9, 0.2, ", and shows nothing beyond the random masks control."),
    ],
)
def test_to_lose_less_than_a_control_is_not_to_lose_beyond_it(
    gain: float, uniform: float, random: float | None, words: str
) -> None:
    made = comparison(gain, gain - 0.5, gain + 0.5)
    leads = {"uniform": uniform} if random is None else {"uniform": uniform, "random": random}
    sentence = task_sentence(made, with_leads(made, **leads))
    assert sentence.endswith(words), sentence
    assert ("beyond the" in sentence) == ("beyond" in words)


def test_a_method_without_a_control_of_its_strength_is_not_called_untested() -> None:
    made = comparison(0.5, 0.1, 0.9)
    for one in made.rows[2:]:
        one.steering["masks_hash"] = "of others"
    assert task_sentence(made, []).endswith(", and no control of its strength was run.")
    assert "the unsteered model, and no control of its strength was run." in first_minute({"one": made}, [])[0]


def further(made: Comparison, metric: str, gain: float, better: bool = False) -> Comparison:
    """The same runs by another metric of the task, of which CLAS gains so much."""
    found = made.model_copy(deep=True, update={"metric": metric, "higher_is_better": better, "unit": "shares of 1"})
    for row in found.rows[1:]:
        row.gain, row.low, row.high = 0.0, -0.1, 0.1
    row = found.rows[1]
    row.gain, row.low, row.high = gain, gain - 0.1, gain + 0.1
    return found


def test_what_other_metrics_of_a_task_show_stands_in_its_sentence_and_in_the_headline() -> None:
    """A gain in one measure that another one takes back is no clean gain: answers that only repeat themselves, for one."""
    made = comparison(1.0, 0.8, 1.2).model_copy(update={"family": "clas_open_force", "metric": "in_language"})
    for row in made.rows[2:]:
        row.gain, row.low, row.high = 0.1, -0.4, 0.6
    repetition = further(made, "repetition", 0.25)
    tested = with_leads(made, uniform=0.9, random=0.9)
    sentence, picked_from, about = first_minute({"a-repetition": repetition, "a": made}, tested)
    assert about is made
    assert sentence == (
        "CLAS gained 1.00 points (0.80 to 1.20; 2 of 2 languages steered) on open questions in another language over the "
        "unsteered model, and beat the uniform gain control and the random masks control, but by repetition (0 if an answer is "
        "empty) it is worse by 0.250 shares of 1 (0.150 to 0.350)."
    )
    assert "from 5 comparisons" in picked_from  # those by the first metric
    told = task_sentence(made, tested, [repetition, further(made, "exact_match", 0.05, True)])
    assert told.endswith(
        "beyond the uniform gain control and the random masks control; by repetition (0 if an answer is empty), CLAS is worse "
        "by 0.250 shares of 1 (0.150 to 0.350); by exact match, no gain or loss is shown."
    )
    assert "CLAS is better by 0.250" in task_sentence(made, tested, [further(made, "repetition", -0.25)])
    assert [[one.metric for one in group] for group in by_task([repetition, made])] == [["in_language", "repetition"]]
    shares = made.model_copy(update={"unit": "shares of 1"})  # which says nothing of what is shared
    said = first_minute({"a": shares}, [])[0]
    assert (
        "shares of 1 (0.800 to 1.200; 2 of 2 languages steered) on open questions in another language (answers in the " in said
    )


def test_a_run_that_steered_nothing_is_no_comparison() -> None:
    """It has the unsteered model's answers by what it is; counted, it would make what others show look like chance."""
    made = comparison(1.0, 0.8, 1.2)
    for row in made.rows[2:]:
        row.gain, row.low, row.high = 0.1, -0.4, 0.6
    sentence, picked_from, _ = first_minute({"one": made}, with_leads(made, uniform=0.9, random=0.9))
    assert "from 5 comparisons" in picked_from
    idle = made.rows[1].model_copy(deep=True, update={"label": "int-mu", "gain": 0.0, "low": 0.0, "high": 0.0})
    idle.steering |= {"method": "int-mu", "left_alone": dict.fromkeys(("hi", "de"), "tuned to 0")}
    more = made.model_copy(update={"rows": [*made.rows, idle]})
    assert first_minute({"one": more}, with_leads(made, uniform=0.9, random=0.9))[:2] == (sentence, picked_from)
    assert "Int-mu was kept at strength 0 in every language" in task_sentence(more, [])


def test_the_headline_is_not_that_nothing_is_shown_where_another_metric_shows_it() -> None:
    made = comparison(0.1, -0.4, 0.6)
    for row in made.rows[2:]:
        row.gain, row.low, row.high = 0.1, -0.4, 0.6
    sentence = first_minute({"a": made, "a-repetition": further(made, "repetition", 0.25)}, [])[0]
    assert sentence == (
        "By the first metric of each task, no method is shown to help or to hurt: the 95\u00a0% interval of every average gain "
        "holds 0; by others, some do not."
    )
    quiet = further(made, "repetition", 0.05)
    assert first_minute({"a": made, "a-repetition": quiet}, [])[0].startswith("No method")
    quiet.rows[3].low = quiet.rows[3].gain = 0.02  # a control's is one, too
    assert first_minute({"a": made, "a-repetition": quiet}, [])[0] == sentence
    assert "by repetition (0 if an answer is empty), the random masks control is worse by 0.020" in task_sentence(
        made, [], [quiet]
    )


def test_a_tasks_sentence_says_in_how_many_languages_the_gain_was_made() -> None:
    made = comparison(0.5, 0.1, 0.9)
    row = primary_of(made)
    assert row is not None
    row.steering["tuned"] = {"clas_xnli": {"hi": {"alpha": 0.0}, "de": {"alpha": -1.0}}}
    row.cells["hi"] = row.cells["hi"].model_copy(update={"gain": 0.0, "p_holm": None})
    for gain, words in ((1.5, "1 significantly better"), (-1.5, "none significantly better, 1 significantly worse")):
        row.cells["de"] = row.cells["de"].model_copy(update={"gain": gain, "p_holm": 0.01})
        assert f"gains 0.50 points (0.10 to 0.90; 1 of 2 languages steered, {words})" in task_sentence(made, [])
    row.steering = {}  # a run of another program says nothing of what it steers
    assert "gains 0.50 points (0.10 to 0.90; none significantly better, 1 significantly worse)" in task_sentence(made, [])


def test_the_smallest_gain_is_that_of_every_method_and_not_of_a_guarded_one_alone() -> None:
    made = comparison(0.5, 0.1, 0.9)
    row = primary_of(made)
    assert row is not None
    row.smallest = 0.012
    row.steering["tuned"] = {"clas_xnli": {"hi": {"alpha": 0.0}, "de": {"alpha": -1.0}}}
    more = [("diffmean", 0.31), ("incline", 0.2)]
    for label, smallest in more:
        other = row.model_copy(update={"label": label, "smallest": smallest, "steering": {"method": label}})
        made.rows.append(other)
    assert smallest_seen([made]) == (
        "Smallest average gain that is found in 80\u00a0% of cases, of gains that vary as these do: on XNLI 0.01 (CLAS, 1 of 2 "
        "languages steered) to 0.31 points (DiffMean, 2 of 2 languages steered). A language left alone varies by nothing, so "
        "what steers few of them is seen more finely."
    )
    row.steering["tuned"]["clas_xnli"]["de"]["alpha"] = 0.0
    assert "on XNLI 0.20 (INCLINE, 2 of 2 languages steered) to 0.31 points" in smallest_seen([made])
    assert smallest_seen([comparison(0.5, None, None)]) == ""


def test_single_intervals_are_said_to_be_single() -> None:
    made = comparison(0.5, 0.1, 0.9)
    told = below_the_headline([made, further(made, "repetition", 0.25)], with_leads(made, uniform=0.9, random=0.9))
    assert told[-1] == (
        "Each of these intervals stands by itself: 6 were looked at, and where nothing differs, one in twenty lies on one side "
        "of 0 by chance."
    )
    assert len(told) == 3
    assert "stands by itself" not in " ".join(below_the_headline([made], []))


@pytest.mark.parametrize(
    ("gains", "leads", "words"),
    [
        (
            (1.0, 0.5, 1.5),
            (0.9, 0.7),
            "CLAS gained 1.00 points (0.50 to 1.50; 2 of 2 languages steered) on XNLI over the unsteered model, and",
        ),
        ((1.0, 0.5, 1.5), (0.9, 0.2), "but is not shown to beat the random masks control"),
        ((0.1, -0.4, 0.6), (0.1, -0.8), "The random masks control beat CLAS by 0.80 points (0.30 to 1.30) on XNLI"),
        (
            (-1.0, -1.5, -0.5),
            (0.1, 0.1),
            "CLAS lost 1.00 points (0.50 to 1.50; 2 of 2 languages steered) on XNLI over the unsteered model",
        ),
        ((0.1, -0.4, 0.6), (0.1, 0.1), "No method is shown to help or to hurt: the 95"),
    ],
)
@pytest.mark.parametrize("higher_is_better", [True, False])
def test_the_headline_is_the_clearest_statement_whichever_way_it_points(
    gains: tuple[float, float, float], leads: tuple[float, float], words: str, higher_is_better: bool
) -> None:
    turn = 1 if higher_is_better else -1
    gain, *ends = (turn * one for one in gains)
    low, high = sorted(ends)
    made = comparison(gain, low, high).model_copy(update={"higher_is_better": higher_is_better})
    for row in made.rows[2:]:
        row.gain, row.low, row.high = 0.1, -0.4, 0.6
    sentence, _, about = first_minute({"one": made}, with_leads(made, uniform=turn * leads[0], random=turn * leads[1]))
    assert words in sentence
    assert about is made


def test_the_headline_says_from_how_many_comparisons_it_was_picked() -> None:
    clear, unclear = comparison(1.0, 0.8, 1.2), comparison(0.5, 0.02, 0.98).model_copy(update={"family": "clas_xquad"})
    for one in (clear, unclear):
        for row in one.rows[2:]:
            row.gain, row.low, row.high = 0.1, -0.4, 0.6
    sentence, picked_from, about = first_minute({"a": unclear, "b": clear}, [])
    assert about is clear
    assert picked_from == "This was picked from 6 comparisons of averages; adjusted for that many, p\u00a0<\u00a00.001."
    sentence, picked_from, _ = first_minute({"a": unclear}, [])
    assert re.search(r"adjusted for that many, p\u00a0=\u00a00\.1\d\d, so it may be chance\.$", picked_from)
    assert sentence.endswith("was tested against no control.")
    assert "nothing can be said" in first_minute({"a": comparison(0.5, None, None).model_copy(update={"rows": []})}, [])[0]


def test_a_control_that_beats_several_methods_is_one_statement_with_the_judged_one_first() -> None:
    made = comparison(0.1, -0.4, 0.6)
    for row in made.rows[2:]:
        row.gain, row.low, row.high = 0.1, -0.4, 0.6
    # A method that the control does not stand beside may be of another strength, so that being behind it means nothing.
    others = [
        made.rows[1].model_copy(update={"label": label, "steering": {"method": method}})
        for label, method in (("clas own", "clas"), ("int-mu", "int-mu"))
    ]
    made = made.model_copy(update={"rows": [*made.rows, *others]})
    tested = with_leads(made, random=-0.84)
    for row in tested[0].rows:
        if row.label in ("clas own", "int-mu"):
            row.gain, row.low, row.high = -1.74, -2.24, -1.24
    sentence, _, _ = first_minute({"one": made}, tested)
    assert sentence == (
        "The random masks control beat CLAS by 0.84 points (0.34 to 1.34) and CLAS own by 1.74 points (1.24 to 2.24) on XNLI."
    )
    assert task_sentence(made, tested) == (
        "On XNLI (accuracy), CLAS is not shown to help or to hurt (+0.10 points, \u22120.40 to +0.60; 2 of 2 languages "
        "steered), and is behind the random masks control by 0.84 points (0.34 to 1.34); no gain or loss is shown for CLAS own "
        "and Int-mu (each 2 of 2 languages steered)."
    )
    smallest = smallest_seen([comparison(0.1, -0.4, 0.6)])
    assert smallest == (
        "Smallest average gain that is found in 80\u00a0% of cases, of gains that vary as these do: on XNLI 0.71 points (CLAS, "
        "2 of 2 languages steered)."
    )


def test_a_control_that_fails_wholly_leaves_room_for_what_methods_gain() -> None:
    made = comparison(0.5, 0.1, 0.9)
    panels = gain_panels(made, "one")
    assert panels is not None
    assert "An arrow" not in str(panels.caption)
    made.rows[3].cells["hi"].gain = -40.0
    limits = limits_of(made.rows[1:], ["hi", "de"])
    assert -3 < limits[0] < 0 < limits[1]
    panels = gain_panels(made, "one")
    assert panels is not None
    assert "An arrow at the edge is a gain that lies beyond, with its number." in str(panels.caption)
