import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

from assay_cleaning.calibration import calibrate, wilson
from assay_cleaning.committee import Committee, TooFewPairs, fit_committee, fold_of
from assay_cleaning.labelling import has_direction
from assay_data.conversations import PreferencePair
from assay_data.errors import DataError
from assay_data.generated import generate_pairs

PAIRS = [pair for pair in generate_pairs(1500, seed=5) if has_direction(pair)]
NEW = [pair for pair in generate_pairs(300, seed=6) if has_direction(pair)]


@pytest.fixture(scope="module")
def committee():
    return fit_committee(PAIRS)


def test_it_finds_the_planted_flips_and_its_probabilities_are_meant(committee):
    wrong = np.array([committee.judge(pair).record_is_wrong for pair in PAIRS])
    flipped = np.array([pair.metadata["planted_flip"] == "true" for pair in PAIRS])
    found = wrong >= 0.5
    precision, recall = flipped[found].mean(), found[flipped].mean()
    print(f"precision {precision:.3f} of {found.sum()}, recall {recall:.3f} of {flipped.sum()}")
    assert precision > 0.8 and recall > 0.85
    assert abs(committee.noise - flipped.mean()) < 0.06
    for low, high in ((0.0, 0.2), (0.8, 1.0)):
        inside = (wrong >= low) & (wrong <= high)
        assert abs(wrong[inside].mean() - flipped[inside].mean()) < 0.1


def test_it_judges_new_prompts_as_well(committee):
    right = [(committee.judge(pair).record_is_wrong >= 0.5) == (pair.metadata["planted_flip"] == "true") for pair in NEW]
    assert np.mean(right) > 0.85


def test_no_pair_is_judged_by_a_model_that_saw_its_prompt(committee):
    """Turning the pairs of one fold round changes the models that judge the other folds, and not a bit of those that judge it."""
    fold = fold_of(PAIRS[0])
    turned = [pair.turned_round() if fold_of(pair) == fold else pair for pair in PAIRS]
    changed = fit_committee(turned)
    for before, after in zip(committee.folds[fold], changed.folds[fold], strict=True):
        assert before.weights == after.weights
    assert any(before.weights != after.weights for before, after in zip(committee.folds[fold - 1], changed.folds[fold - 1], strict=True))


def test_a_pair_turned_round_gets_the_opposite_margin(committee):
    for pair in NEW[:50]:
        there, back = committee.judge(pair), committee.judge(pair.turned_round())
        assert there.margin == -back.margin
        assert there.chosen_is_better == pytest.approx(1 - back.chosen_is_better)


def test_the_cross_fitted_accuracy_has_its_interval(committee):
    accuracy, low, high = committee.accuracy()
    agreed = np.mean([committee.judge(pair).margin > 0 for pair in PAIRS])
    assert accuracy == pytest.approx(agreed, abs=1e-9)
    assert low < accuracy < high
    assert committee.pairs == len(PAIRS)
    assert wilson(8, 10) == pytest.approx((0.4901625, 0.9433178), abs=1e-6)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775328), abs=1e-6)


def test_where_labels_are_drawn_by_lot_nothing_is_found_wrong():
    draw = np.random.default_rng(0)
    pairs = [pair if draw.random() < 0.5 else pair.turned_round() for pair in PAIRS if pair.metadata["planted_flip"] == "false"]
    committee = fit_committee(pairs)
    _, low, high = committee.accuracy()
    assert low < 0.55
    found = [committee.judge(pair).record_is_wrong >= 0.5 for pair in pairs]
    assert np.mean(found) < 0.1


def test_calibration_finds_noise_and_temperature_again():
    draw = np.random.default_rng(1)
    margins = draw.normal(scale=3.0, size=20_000)
    truth = draw.random(20_000) < 1 / (1 + np.exp(-margins / 0.7))
    recorded = truth ^ (draw.random(20_000) < 0.15)
    temperature, noise = calibrate(np.where(recorded, margins, -margins))
    assert temperature == pytest.approx(0.7, abs=0.1)
    assert noise == pytest.approx(0.15, abs=0.02)


def test_saving_keeps_every_judgement(committee, tmp_path):
    uri = str(tmp_path / "committee.json.gz")
    artifact = committee.save(uri)
    loaded = Committee.load(uri)
    assert artifact.size_bytes == (tmp_path / "committee.json.gz").stat().st_size
    assert loaded.sha256 == committee.sha256
    assert [loaded.judge(pair) for pair in NEW] == [committee.judge(pair) for pair in NEW]


def test_another_process_with_another_hash_seed_fits_the_same_bytes(committee, tmp_path):
    script = (
        "from assay_data.generated import generate_pairs\n"
        "from assay_cleaning.labelling import has_direction\n"
        "from assay_cleaning.committee import fit_committee\n"
        "print(fit_committee([p for p in generate_pairs(1500, seed=5) if has_direction(p)]).sha256)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1"}
    )
    assert run.stdout.strip() == committee.sha256


def test_too_few_pairs_are_refused():
    with pytest.raises(TooFewPairs, match="at least 50"):
        fit_committee(PAIRS[:49])
    with pytest.raises(TooFewPairs, match="2 are wanted"):
        fit_committee([PreferencePair(PAIRS[0].prompt, f"a{n}", "b") for n in range(60)])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not gzip",
        gzip.compress(b"{", mtime=0),
        gzip.compress(b"[]", mtime=0),
        gzip.compress(json.dumps({"format": "other/1"}).encode(), mtime=0),
    ],
)
def test_a_file_that_is_no_committee_is_refused(tmp_path, data):
    (tmp_path / "c").write_bytes(data)
    with pytest.raises(DataError):
        Committee.load(str(tmp_path / "c"))


def test_a_truncated_committee_is_refused(committee, tmp_path):
    committee.save(str(tmp_path / "c"))
    (tmp_path / "c").write_bytes((tmp_path / "c").read_bytes()[:-100])
    with pytest.raises(DataError, match="not a committee as CreateCommitteeJob leaves it"):
        Committee.load(str(tmp_path / "c"))
