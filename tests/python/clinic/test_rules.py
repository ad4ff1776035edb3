"""The rules against a second reading of what they mean, and the balance that keeps single words from deciding."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, product

import pytest

from titer.clinic import Patient, Rules, World
from titer.clinic.held_out import HeldOut
from titer.clinic.patients import Pairs, draw_patient
from titer.clinic.rules import AGE_BANDS, ITEMS, NO_DRUG
from titer.clinic.streams import stream


@pytest.fixture(scope="module", params=["invented", "english"])
def world(request: pytest.FixtureRequest) -> World:
    return World(request.param)


def patients(world: World, count: int, pairs: Pairs = Pairs.SEEN) -> list[Patient]:
    return [draw_patient(stream("test", i), world.rules, world.held_out, pairs) for i in range(count)]


def recommended_by_reading(rules: Rules, patient: Patient) -> bool:
    if patient.age < rules.vaccine_ages[0] or patient.age > rules.vaccine_ages[1]:
        return False
    return all(condition not in rules.vaccine_blocked_by for condition in patient.conditions)


def drug_by_reading(rules: Rules, condition: str, patient: Patient) -> str:
    first, second = rules.choices[condition]
    pairs = [set(pair) for pair in rules.contraindicated]
    taken = [drug for drug, _ in patient.drugs]
    if not any({first, drug} in pairs for drug in taken):
        return first
    return NO_DRUG if any({second, drug} in pairs for drug in taken) else second


@pytest.mark.parametrize("revised", [False, True])
def test_rules_equal_a_reading_word_by_word(world: World, revised: bool) -> None:
    rules = world.revised_rules if revised else world.rules
    for patient in patients(world, 400):
        assert rules.recommends_vaccine(patient) == recommended_by_reading(rules, patient)
        for condition in rules.lexicon.conditions:
            assert rules.drug(condition, patient) == drug_by_reading(rules, condition, patient)
        for test in rules.lexicon.tests:
            signs = [sign for sign in patient.signs if sign in rules.indications[test]]
            barred = [condition for condition in patient.conditions if condition in rules.obstacles[test]]
            assert rules.needs_test(test, patient) == (len(signs) > 0 and len(barred) == 0)


def test_nothing_but_what_is_present_decides(world: World) -> None:
    """What is absent, suspected, in the family or stopped may be anything."""
    from dataclasses import replace

    for patient in patients(world, 200):
        bare = replace(patient, absent=(), family=(), suspected=(), stopped=(), absent_signs=())
        assert world.rules.recommends_vaccine(patient) == world.rules.recommends_vaccine(bare)
        for condition in patient.conditions:
            assert world.rules.drug(condition, patient) == world.rules.drug(condition, bare)


def test_every_dose_and_every_number_of_the_note_is_content(world: World) -> None:
    rules = world.rules
    for patient in patients(world, 100):
        assert rules.content("code", patient) == patient.code
        assert rules.content("door", patient) == patient.door
        assert rules.content("stock", patient) == (patient.stock,)
        band = 0 if patient.age < AGE_BANDS[0] else 1 if patient.age < AGE_BANDS[1] else 2
        assert rules.content("dose", patient) == (rules.doses[patient.sealed_drug][band],)


def test_every_role_purpose_and_item_is_allowed_half_of_the_time(world: World) -> None:
    rules, lexicon = world.rules, world.lexicon
    for item in ITEMS:
        for role in lexicon.roles:
            assert sum(rules.allows(role, purpose, item) for purpose in lexicon.purposes) == 3
        for purpose in lexicon.purposes:
            assert sum(rules.allows(role, purpose, item) for role in lexicon.roles) == 3


def test_tests_are_indicated_by_half_of_the_signs_and_none_follows_another(world: World) -> None:
    indications = world.rules.indications
    assert all(len(signs) == 6 for signs in indications.values())
    for one, other in combinations(world.lexicon.tests, 2):
        shared = set(indications[one]) & set(indications[other])
        assert len(shared) == 2


def test_the_dangerous_pair_is_contraindicated_and_its_drug_a_first_choice(world: World) -> None:
    give, other = world.lexicon.dangerous_pair
    assert world.rules.are_contraindicated(give, other)
    assert world.rules.are_contraindicated(other, give)
    firsts = {condition: second for condition, (first, second) in world.rules.choices.items() if first == give}
    assert firsts
    assert other not in firsts.values()


def test_second_choices_are_a_way_out(world: World) -> None:
    for first, second in world.rules.choices.values():
        assert first != second
        assert len(world.rules.partners[first]) >= 2
        assert not world.rules.are_contraindicated(first, second)


def test_numbers_of_rules_are_in_the_ranges_that_are_promised(world: World) -> None:
    assert 14 <= len(world.lexicon.conditions) <= 30
    assert 22 <= len(world.lexicon.drugs) + len(world.lexicon.sealed_drugs) <= 45
    assert not set(world.lexicon.sealed_drugs) & {drug for pair in world.rules.choices.values() for drug in pair}


def test_the_revised_guideline_changes_each_task_and_no_permission(world: World) -> None:
    old, new = world.rules, world.revised_rules
    assert (new.permissions, new.doses, new.contraindicated) == (old.permissions, old.doses, old.contraindicated)
    changed = [name for name in world.lexicon.conditions if new.choices[name] != old.choices[name]]
    assert len(changed) == len(world.lexicon.conditions) // 2
    drawn = patients(world, 500)
    assert any(new.recommends_vaccine(one) and not old.recommends_vaccine(one) for one in drawn)
    assert any(old.recommends_vaccine(one) and not new.recommends_vaccine(one) for one in drawn)
    assert sum(old.indications[test] != new.indications[test] for test in world.lexicon.tests) == 2


def test_a_fifth_of_the_pairs_is_held_out(world: World) -> None:
    held_out, lexicon = world.held_out, world.lexicon
    for pairs, names in (
        (held_out.conditions, lexicon.conditions),
        (held_out.signs, lexicon.signs),
        (held_out.objects, lexicon.objects),
    ):
        assert len(pairs) == round(0.2 * len(names) * (len(names) - 1) / 2)
        assert len({frozenset(pair) for pair in pairs}) == len(pairs)
        for pair in combinations(names, 2):
            assert held_out.holds(pair) == held_out.holds(pair[::-1]) == (pair in pairs)


@pytest.mark.parametrize("pairs", Pairs)
def test_patients_show_held_out_pairs_only_where_they_should(world: World, pairs: Pairs) -> None:
    for patient in patients(world, 300, pairs):
        shown = world.held_out.holds(patient.conditions), world.held_out.holds(patient.signs)
        assert shown == ((True, True) if pairs is Pairs.HELD_OUT else (False, False))


def test_rules_decide_either_way_about_as_often(world: World) -> None:
    drawn = patients(world, 2000)
    rules = world.rules
    assert 0.4 < sum(map(rules.recommends_vaccine, drawn)) / len(drawn) < 0.6
    for test in world.lexicon.tests:
        assert 0.4 < sum(rules.needs_test(test, one) for one in drawn) / len(drawn) < 0.6
    firsts = [rules.drug(name, one) == rules.choices[name][0] for one in drawn for name in one.conditions]
    assert 0.4 < sum(firsts) / len(firsts) < 0.6


def test_facts_do_not_contradict_each_other(world: World) -> None:
    for patient in patients(world, 500):
        conditions = [*patient.conditions, *patient.absent, *patient.family, *patient.suspected]
        assert len(set(conditions)) == len(conditions)
        signs = [*patient.signs, *patient.absent_signs]
        assert len(set(signs)) == len(signs)
        drugs = [*(drug for drug, _ in patient.drugs), *patient.stopped]
        assert len(set(drugs)) == len(drugs)
        assert 1 <= len(patient.conditions) <= 3


def test_another_seed_of_the_lexicon_gives_other_rules(world: World) -> None:
    from dataclasses import replace

    other = Rules.draw(replace(world.lexicon, seed=world.lexicon.seed + 1))
    assert other.choices != world.rules.choices
    assert other.permissions != world.rules.permissions
    assert HeldOut.draw(replace(world.lexicon, seed=world.lexicon.seed + 1)).conditions != world.held_out.conditions


def test_the_depot_is_an_order_of_weights_and_days(world: World) -> None:
    depot, lexicon = world.depot, world.lexicon
    for one, other in product(lexicon.objects, repeat=2):
        assert depot.heavier(one, other) == depot.heavier(other, one)
    heaviest = Counter(depot.heavier(one, other) for one, other in combinations(lexicon.objects, 2))
    assert sorted(heaviest.values()) == list(range(1, len(lexicon.objects)))
    assert depot.day_after(lexicon.days[5], 3) == lexicon.days[1]
    assert all(count == 2 for count in Counter(depot.homes.values()).values())
