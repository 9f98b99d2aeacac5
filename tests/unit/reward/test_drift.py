"""Drift of planted samples: a shifted one shows, a like one does not, and figures agree with scipy where it has them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from assay.common.v1 import common_pb2
from assay_data.bag_of_words import BagOfWordsModel
from assay_data.fingerprints import Fingerprint
from assay_reward.drift import DriftMonitor, Reference, distance, drift_of, reference_of, stability_index
from assay_reward.engine import Scored
from assay_reward.loaded import LoadedModel, ready
from assay_reward.models import LoadOptions, load_folder
from assay_reward.models.base import Prepared
from assay_reward.statistics import effective_size

QUANTILES = np.linspace(0, 1, 101)


def reference(sample: np.ndarray) -> Reference:
    return Reference(quantiles=np.quantile(sample, QUANTILES), n=sample.size)


def draws(n: int, mean: float = 0.0, std: float = 1.0, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, std, n)


def drifted(raw: np.ndarray, held_against: Reference):
    return drift_of(raw, np.arange(raw.size, dtype=float), 0, held_against)


def test_a_like_sample_shows_no_drift() -> None:
    exceeded = np.zeros(2)
    for seed in range(200):
        found = drifted(draws(2000, seed=seed + 10_000), reference(draws(4000, seed=seed)))
        assert found.psi < 0.1
        exceeded += [found.psi > found.psi_critical, found.ks > found.ks_critical]
    # Five in a hundred is what the critical values promise: of 200 windows, more than 22 has a probability of about 1 in 1000.
    assert (exceeded <= 22).all() and exceeded.sum() > 0


def test_a_like_sample_in_groups_shows_no_drift_either() -> None:
    calls = np.repeat(np.arange(200), 10)
    exceeded = np.zeros(2)
    for seed in range(200):
        raw = np.sqrt(0.6) * draws(200, seed=seed + 10_000)[calls] + np.sqrt(0.4) * draws(2000, seed=seed + 20_000)
        worth = effective_size(raw, calls)
        assert worth < 600
        found = drift_of(raw, np.arange(raw.size, dtype=float), 0, reference(draws(4000, seed=seed)), effective_n=worth)
        exceeded += [found.psi > found.psi_critical, found.ks > found.ks_critical]
    assert (exceeded <= 22).all()


@pytest.mark.parametrize(("mean", "std"), [(0.7, 1.0), (0.0, 2.0), (-0.7, 1.0)])
def test_a_shifted_or_wider_sample_drifts(mean: float, std: float) -> None:
    found = drifted(draws(2000, mean, std), reference(draws(4000, seed=2)))
    assert found.psi > 0.25 > 10 * found.psi_critical
    assert found.ks > 2 * found.ks_critical


def test_the_further_the_shift_the_higher_the_index() -> None:
    held_against = reference(draws(4000, seed=2))
    indices = [stability_index(draws(3000, shift), held_against)[0] for shift in (0.0, 0.3, 0.6, 1.2)]
    assert indices == sorted(indices) and indices[0] < 0.05 < indices[1]


def test_the_distance_is_that_of_scipy_on_the_whole_reference() -> None:
    held_against, window = draws(4000, seed=2), draws(500, 0.3)
    assert distance(window, reference(held_against)) == pytest.approx(stats.ks_2samp(window, held_against).statistic, abs=0.011)


def test_a_reference_of_few_values_is_held_against_as_it_is() -> None:
    coin = Reference(quantiles=np.repeat([0.0, 1.0], [50, 51]), n=1000)
    alike = np.repeat([0.0, 1.0], 100)
    assert stability_index(alike, coin)[0] < 0.01 and distance(alike, coin) < 0.02
    other = np.repeat([0.0, 1.0], [20, 180])
    assert stability_index(other, coin)[0] > 0.25 and distance(other, coin) == pytest.approx(0.39, abs=0.02)
    constant = Reference(quantiles=np.full(101, 2.0), n=1000)
    assert distance(np.full(50, 2.0), constant) == 0.0 and distance(np.full(50, 3.0), constant) == 1.0
    assert stability_index(np.full(50, 2.0), constant) == (0.0, 1)


def test_saturation_is_the_share_outside_the_reference_range_with_its_interval() -> None:
    held_against = Reference(quantiles=np.linspace(-1, 1, 101), n=500)
    found = drifted(np.array([-3.0, -1.0, 0.0, 1.0, 1.5]), held_against).saturation
    assert found is not None and found.value == 0.4 and found.n == 5
    assert 0.1 < found.low < 0.4 < found.high < 0.8


def test_scores_that_grow_with_length_show_so_without_a_card() -> None:
    tokens = np.arange(40, dtype=float)
    found = drift_of(tokens**2, tokens, 10, None)
    assert found.length_correlation is not None and found.length_correlation.value == pytest.approx(1.0)
    assert (found.truncation.value, found.truncation.n) == (0.25, 40)
    assert found.psi is found.ks is found.saturation is None


def test_a_card_without_quantiles_is_no_reference() -> None:
    assert reference_of(None) is None
    assert reference_of(common_pb2.QualityCard(mean=1.0, std=1.0)) is None


@pytest.fixture
def loaded(bag_of_words_folder: Path) -> LoadedModel:
    hashes = Fingerprint(weights_sha256="w", tokenizer_sha256="t", chat_template_sha256="c", fingerprint="f")
    model = load_folder(bag_of_words_folder, LoadOptions())
    return LoadedModel(name="rm", revision="1", uri="", model=model, fingerprint=hashes, loaded_at=0.0, memory_bytes=0)


@pytest.fixture
def bag_of_words_folder(tmp_path: Path) -> Path:
    BagOfWordsModel(vocabulary=("bread",), idf=np.ones(1), weights=np.ones(1), mean=0.0, std=1.0).save(tmp_path)
    return tmp_path


def scored(values: np.ndarray) -> list[Scored]:
    return [Scored(raw=float(value), prepared=Prepared(text="x", prompt_tokens=0, response_tokens=1)) for value in values]


def test_the_window_slides_and_belongs_to_the_weights_under_the_name(loaded: LoadedModel) -> None:
    monitor = DriftMonitor(window=100)
    assert monitor.drift(ready(loaded), None) is None
    card = common_pb2.QualityCard(reference_quantiles=list(np.quantile(draws(1000), QUANTILES)), reference_scores=1000)
    monitor.observe(loaded, scored(draws(100, 5.0)))
    shifted = monitor.drift(ready(loaded), card)
    assert shifted is not None and shifted.n == 100 and shifted.psi is not None and shifted.psi > 1
    monitor.observe(loaded, scored(draws(100, seed=3)))
    back = monitor.drift(ready(loaded), card)
    assert back is not None and back.n == 100 and back.psi is not None and back.psi < back.psi_critical
    other = replace(loaded, fingerprint=replace(loaded.fingerprint, fingerprint="g"))
    assert monitor.drift(ready(other), card) is None


def test_what_is_unloaded_is_forgotten(loaded: LoadedModel) -> None:
    monitor = DriftMonitor(window=100)
    other = replace(loaded, revision="2")
    for one in (loaded, other):
        monitor.observe(one, scored(np.ones(3)))
    assert monitor.keep([ready(other)]) == {("rm", "1")}
    assert monitor.drift(ready(loaded), None) is None
    assert monitor.drift(ready(other), None) is not None
    assert monitor.keep([]) == {("rm", "2")}
