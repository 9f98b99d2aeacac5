import pytest

from assay_cleaning.calibration import wilson
from assay_cleaning.categories import DEFAULT_RULES, Action, Category, Options
from assay_cleaning.committee import fit_committee
from assay_cleaning.labelling import LONGEST_TEXT, Labeller, PairError, has_direction, policy_id, reason_of
from assay_data.conversations import Message, PreferencePair
from assay_data.generated import generate_pairs

PAIRS = generate_pairs(2500, seed=11)
LEAST = {  # precision, recall
    "SAME": (0.93, 0.93),
    "OPPOSITE": (0.85, 0.85),
    "TOXIC": (0.95, 0.75),
    "VAGUE": (0.95, 0.80),
    "REPETITIVE": (0.93, 0.97),
    "EMPTY": (0.98, 0.98),
}


@pytest.fixture(scope="module")
def committee():
    return fit_committee([pair for pair in PAIRS if has_direction(pair)])


@pytest.fixture(scope="module")
def verdicts(committee):
    labeller = Labeller(Options(), committee)
    return [labeller.label(pair) for pair in PAIRS]


@pytest.mark.parametrize("category", list(Category))
def test_planted_categories_are_found(verdicts, category):
    planted = [pair.metadata["planted_category"] == category for pair in PAIRS]
    found = [verdict.category is category for verdict in verdicts]
    both = sum(one and other for one, other in zip(planted, found, strict=True))
    precision, recall = both / sum(found), both / sum(planted)
    for name, value, n in (("precision", precision, sum(found)), ("recall", recall, sum(planted))):
        low, high = wilson(value * n, n)
        print(f"{category:10} {name:9} {value:.3f} [{low:.3f}, {high:.3f}] n {n}")
    assert precision >= LEAST[category][0]
    assert recall >= LEAST[category][1]


def test_what_is_done_follows_the_category(verdicts):
    for verdict in verdicts:
        assert verdict.action is DEFAULT_RULES[verdict.category]
        clean = verdict.clean_pair()
        if verdict.action is Action.KEEP:
            assert clean == verdict.pair
        elif verdict.action is Action.FLIP:
            assert clean == verdict.pair.turned_round()
        else:
            assert clean is None


def test_cleaning_makes_the_labels_better(verdicts):
    def right(pairs):
        gold = [float(one.metadata["gold_chosen"]) > float(one.metadata["gold_rejected"]) for one in pairs]
        return sum(gold) / len(gold)

    raw = [pair for pair in PAIRS if pair.metadata["planted_category"] in ("SAME", "OPPOSITE")]
    kept = [verdict.pair for verdict in verdicts if verdict.action is Action.KEEP]
    turned = [verdict.pair for verdict in verdicts if verdict.action is Action.FLIP]
    assert right(raw) < 0.85
    assert right(kept) > 0.95
    assert right(turned) < 0.15


def test_a_verdict_does_not_depend_on_what_else_was_labelled(committee, verdicts):
    fresh = Labeller(Options(), committee)
    assert [fresh.label(pair) for pair in reversed(PAIRS[:100])] == list(reversed(verdicts[:100]))


def test_evidence_stands_in_order_of_strength_and_explains(verdicts):
    for verdict in verdicts:
        assert 0.5 <= verdict.confidence <= 1
        assert verdict.evidence, "with a committee each verdict has evidence"
        assert verdict.evidence[0].category is verdict.category
        assert verdict.evidence[0].score >= verdict.evidence[0].threshold
        assert verdict.evidence[0].explanation in reason_of(verdict)


def test_without_a_committee_nothing_is_opposite():
    labeller = Labeller(Options())
    found = {labeller.label(pair).category for pair in PAIRS[:500]}
    assert found == set(Category) - {Category.OPPOSITE}


def test_a_higher_bar_turns_fewer_round_and_keeps_the_others_as_same(committee, verdicts):
    strict = [Labeller(Options(min_flip_confidence=0.99), committee).label(pair) for pair in PAIRS]
    flips = [verdict.action is Action.FLIP for verdict in verdicts]
    strict_flips = [verdict.action is Action.FLIP for verdict in strict]
    assert 0 < sum(strict_flips) < sum(flips)
    for before, after in zip(verdicts, strict, strict=True):
        if before.action is Action.FLIP and after.action is not Action.FLIP:
            assert (after.category, after.action) == (Category.SAME, Action.KEEP)


def test_rules_decide_what_is_done(committee):
    rules = {**DEFAULT_RULES, Category.OPPOSITE: Action.DROP, Category.VAGUE: Action.KEEP}
    labeller = Labeller(Options(rules=rules), committee)
    actions = {(verdict.category, verdict.action) for verdict in map(labeller.label, PAIRS)}
    assert (Category.OPPOSITE, Action.DROP) in actions and (Category.VAGUE, Action.KEEP) in actions
    assert not any(action is Action.FLIP for _, action in actions)


def test_the_policy_id_changes_with_all_that_changes_verdicts(committee):
    ids = {
        policy_id(Options()),
        policy_id(Options(), committee),
        policy_id(Options(min_flip_confidence=0.7)),
        policy_id(Options(rules={**DEFAULT_RULES, Category.TOXIC: Action.KEEP})),
    }
    assert len(ids) == 4
    assert policy_id(Options(committee_uri="a"), committee) == policy_id(Options(committee_uri="b"), committee)


def test_a_text_that_is_too_long_is_refused_by_field():
    labeller = Labeller(Options())
    long = "word " * (LONGEST_TEXT // 5 + 1)
    for field, pair in {
        "chosen": PreferencePair((), long, "b"),
        "prompt[1].content": PreferencePair((Message("user", "a"), Message("user", long)), "a", "b"),
    }.items():
        with pytest.raises(PairError, match="at most 400,000") as caught:
            labeller.label(pair)
        assert caught.value.field == field
