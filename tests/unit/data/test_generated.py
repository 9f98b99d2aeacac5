from collections import Counter

import pytest

from assay_data.generated import SHARES, generate_pairs, gold_score
from assay_data.pairs import read_pairs, write_pairs

PAIRS = generate_pairs(1500, seed=7)


def planted(category):
    return [pair for pair in PAIRS if pair.metadata["planted_category"] == category]


def test_the_same_seed_gives_the_same_pairs_and_another_seed_others():
    assert [pair.id for pair in generate_pairs(200, seed=7)] == [pair.id for pair in PAIRS[:200]]
    assert not {pair.id for pair in generate_pairs(200, seed=8)} & {pair.id for pair in PAIRS}


def test_no_pair_comes_twice():
    assert len({pair.id for pair in PAIRS}) == len(PAIRS)


def test_the_categories_have_their_shares():
    counts = Counter(pair.metadata["planted_category"] for pair in PAIRS)
    assert set(counts) == set(SHARES)
    for category, share in SHARES.items():
        assert abs(counts[category] / len(PAIRS) - share) < 0.04


def test_chosen_is_better_by_gold_exactly_where_no_flip_is_planted():
    for pair in planted("SAME"):
        assert float(pair.metadata["gold_chosen"]) > float(pair.metadata["gold_rejected"])
        assert pair.metadata["planted_flip"] == "false"
    for pair in planted("OPPOSITE"):
        assert float(pair.metadata["gold_chosen"]) < float(pair.metadata["gold_rejected"])
        assert pair.metadata["planted_flip"] == "true"


def test_the_gold_in_the_metadata_is_the_gold_of_the_answers():
    for pair in PAIRS:
        assert float(pair.metadata["gold_chosen"]) == gold_score(pair.chosen)
        assert float(pair.metadata["gold_rejected"]) == gold_score(pair.rejected)


def test_the_gold_cannot_be_had_by_repeating_the_best_word():
    assert gold_score("check") < gold_score("First check the soil, then compare it with the compost because it helps.")
    assert gold_score("Whatever.") < 0 == gold_score("")


def test_the_answers_differ_widely():
    words = Counter(word for pair in PAIRS for word in pair.chosen.lower().split())
    assert len(words) > 300


def test_the_set_survives_a_file(tmp_path):
    uri = str(tmp_path / "generated.jsonl")
    write_pairs(uri, PAIRS)
    back = list(read_pairs(uri))
    assert back == PAIRS
    assert [dict(pair.metadata) for pair in back] == [dict(pair.metadata) for pair in PAIRS]


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="0 or more"):
        generate_pairs(-1)
    assert generate_pairs(0) == []
