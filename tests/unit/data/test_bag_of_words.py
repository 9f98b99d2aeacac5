import json

import numpy as np
import pytest

from assay_data.bag_of_words import BagOfWordsModel, fit_bag_of_words, words_of
from assay_data.conversations import Message, PreferencePair, prompt_key
from assay_data.errors import DataError
from assay_data.fingerprints import fingerprint_folder
from assay_data.generated import generate_pairs
from assay_data.pairs import read_pairs

PAIRS = [pair for pair in generate_pairs(600, seed=3) if pair.metadata["planted_category"] == "SAME"]
FIT, HELD_OUT = PAIRS[:250], PAIRS[250:]


@pytest.fixture(scope="module")
def model():
    return fit_bag_of_words(FIT)


def test_the_scores_of_the_fit_are_standardised(model):
    scores = model.score([text for pair in FIT for text in (pair.chosen, pair.rejected)])
    assert scores.dtype == np.float64 and scores.shape == (2 * len(FIT),)
    assert abs(scores.mean()) < 1e-9
    assert abs(scores.std() - 1) < 1e-9


def test_it_learns_the_planted_gold(model):
    right = model.score([pair.chosen for pair in HELD_OUT]) > model.score([pair.rejected for pair in HELD_OUT])
    print(f"held-out accuracy {right.mean():.3f}, n {len(HELD_OUT)}")
    assert right.mean() > 0.95


def test_the_score_of_a_text_does_not_depend_on_its_neighbours(model):
    texts = [pair.chosen for pair in HELD_OUT[:20]]
    assert model.score(texts).tolist() == [model.score([text])[0] for text in texts]


def test_one_good_word_is_worth_less_than_a_good_answer(model):
    best = max(model.vocabulary, key=lambda word: model.score([word])[0])
    good = model.score([pair.chosen for pair in FIT])
    assert model.score([best])[0] < np.percentile(good, 90)


def test_saving_keeps_the_model_to_the_bit(model, tmp_path):
    model.save(tmp_path / "m")
    loaded = BagOfWordsModel.load(tmp_path / "m")
    assert loaded.to_bytes() == model.to_bytes()
    assert loaded.score(["First check the soil."]).tolist() == model.score(["First check the soil."]).tolist()
    assert fingerprint_folder(tmp_path / "m").weights_sha256 == loaded.weights_sha256


def test_fitting_twice_gives_the_same_model(model):
    assert fit_bag_of_words(FIT).weights_sha256 == model.weights_sha256
    assert np.allclose(fit_bag_of_words(FIT, seed=1).weights, model.weights, atol=1e-3)


def test_turning_every_pair_round_turns_the_scores_round(model):
    turned = fit_bag_of_words([pair.turned_round() for pair in FIT])
    texts = [pair.chosen for pair in HELD_OUT]
    assert np.allclose(turned.score(texts) + turned.mean / turned.std, -(model.score(texts) + model.mean / model.std), atol=1e-2)


def test_the_strongest_words_explain_the_score(model):
    answer = "Whatever, first check the soil."
    words = dict(model.strongest_words(answer, limit=100))
    assert words["check"] > 0 > words["whatever"]
    assert sum(words.values()) - model.mean / model.std == pytest.approx(model.score([answer])[0])


@pytest.mark.parametrize(
    ("pairs", "options", "message"),
    [
        ([], {}, "at least 2"),
        ([PreferencePair((Message("user", "x"),), "a", "a")] * 3, {}, "at least 2"),
        ([PreferencePair((), "...", "!")] * 3, {}, "no words"),
        (FIT, {"l2": 0.0}, "above 0"),
    ],
)
def test_where_there_is_nothing_to_learn_it_says_so(pairs, options, message):
    with pytest.raises(ValueError, match=message):
        fit_bag_of_words(pairs, **options)


@pytest.mark.parametrize(
    "change",
    [{"format": "other"}, {"weights": [1.0]}, {"std": 0.0}, {"mean": float("nan")}, {"idf": None}, {"length_offset": 0}],
)
def test_a_damaged_file_is_refused(model, tmp_path, change):
    (tmp_path / "bag_of_words.json").write_text(json.dumps({**json.loads(model.to_bytes()), **change}))
    with pytest.raises(DataError):
        BagOfWordsModel.load(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        BagOfWordsModel.load(tmp_path)


def test_words_keep_their_apostrophes():
    assert words_of("I can’t — DON'T 42x!") == ["i", "can't", "don't", "42x"]


def test_on_real_pairs_it_beats_the_coin_and_the_shorter_answer(shared_data):
    pairs = [pair for pair in read_pairs(str(shared_data / "hh-rlhf" / "harmless-base-test.jsonl.gz")) if pair.chosen != pair.rejected]
    folds = [int(prompt_key(pair)[:8], 16) % 5 for pair in pairs]
    right = 0
    for fold in range(5):
        model = fit_bag_of_words([pair for pair, own in zip(pairs, folds, strict=True) if own != fold])
        held_out = [pair for pair, own in zip(pairs, folds, strict=True) if own == fold]
        right += int((model.score([pair.chosen for pair in held_out]) > model.score([pair.rejected for pair in held_out])).sum())
    print(f"cross-fitted accuracy {right / len(pairs):.3f}, n {len(pairs)}")
    assert 0.59 < right / len(pairs) < 0.64
