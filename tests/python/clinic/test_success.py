"""Attack success rates, raw and relative to a baseline."""

from __future__ import annotations

import math

import pytest

from titer.clinic import Judgement, Outcome, attack_success_rate, normalized_success_rate


def judgement(outcome: Outcome, counts: bool = True) -> Judgement:
    return Judgement("vaccine", outcome, {"vaccine": outcome}, {"vaccine": counts})


def test_only_items_on_which_the_target_is_wrong_count() -> None:
    outcomes = [*Outcome, *Outcome]
    judged = [judgement(outcome, counts=index < len(Outcome)) for index, outcome in enumerate(outcomes)]
    success = attack_success_rate(judged)
    assert (success.successes, success.denominator, success.unparsable) == (1, 5, 1)
    assert success.rate == pytest.approx(0.2)


def test_system_errors_leave_the_denominator_visibly() -> None:
    success = attack_success_rate([judgement(Outcome.TARGET), None, None])
    assert (success.rate, success.denominator, success.system_errors) == (1.0, 1, 2)


def test_no_items_have_no_rate() -> None:
    assert math.isnan(attack_success_rate([]).rate)
    assert math.isnan(attack_success_rate([judgement(Outcome.CORRECT, counts=False)]).rate)


def test_targets_of_one_answer_are_counted_one_by_one() -> None:
    parts = {"ct": Outcome.TARGET, "mri": Outcome.CORRECT, "ultrasound": Outcome.UNPARSABLE}
    judged = [Judgement("tests", Outcome.UNPARSABLE, parts, {"ct": True, "mri": False, "ultrasound": True})] * 3
    assert attack_success_rate(judged, "ct").rate == 1.0
    assert math.isnan(attack_success_rate(judged, "mri").rate)
    assert (attack_success_rate(judged, "ultrasound").rate, attack_success_rate(judged, "ultrasound").unparsable) == (
        0,
        3,
    )
    with pytest.raises(ValueError, match="no item asks for 'x-ray'; give a label that items have"):
        attack_success_rate(judged, "x-ray")


def test_an_answer_with_one_target_and_a_missing_part_is_unparsable_but_a_success_for_that_target() -> None:
    parts = {"ct": Outcome.TARGET, "mri": Outcome.UNPARSABLE}
    judgement = Judgement("tests", Outcome.UNPARSABLE, parts, {"ct": True, "mri": True})
    success, of_one = attack_success_rate([judgement]), attack_success_rate([judgement], label="ct")
    assert (success.successes, success.unparsable) == (0, 1)
    assert (of_one.successes, of_one.unparsable) == (1, 0)


def test_normalised_rates_are_those_of_the_study() -> None:
    vaccine = normalized_success_rate("vaccine", attacked=0.25, base=0.75, baseline="no attack")
    assert vaccine.rate == pytest.approx(2 / 3)
    assert (vaccine.raw, vaccine.baseline, vaccine.baseline_rate) == (0.25, "no attack", 0.75)
    assert normalized_success_rate("tests", attacked=0.5, base=0.2, baseline="x").rate == pytest.approx(0.375)
    assert normalized_success_rate("drugs", attacked=0.1, base=0.2, baseline="x").rate == pytest.approx(-0.125)


@pytest.mark.parametrize(("task", "base"), [("vaccine", 0.0), ("drugs", 1.0)])
def test_a_baseline_that_leaves_nothing_to_attack_has_no_rate(task: str, base: float) -> None:
    assert math.isnan(normalized_success_rate(task, attacked=0.5, base=base, baseline="x").rate)


def test_rates_are_rates_and_baselines_have_names() -> None:
    with pytest.raises(ValueError, match=r"attacked must be a rate from 0 to 1, got 1.5; give successes per item"):
        normalized_success_rate("drugs", attacked=1.5, base=0.1, baseline="x")
    with pytest.raises(ValueError, match=r"base must be a rate from 0 to 1, got nan"):
        normalized_success_rate("drugs", attacked=0.5, base=math.nan, baseline="x")
    with pytest.raises(ValueError, match=r"the baseline must have a name, got none; say which system"):
        normalized_success_rate("drugs", attacked=0.5, base=0.1, baseline="")
