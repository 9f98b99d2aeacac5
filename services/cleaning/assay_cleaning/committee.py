"""Opposite: a committee that judges the direction of a preference, and never a pair that it was fitted on.

The prompts are dealt to K folds by their hash. For each fold every member (a Bradley-Terry model with a view of its own) is
fitted on the pairs of the *other* folds, so that any pair, seen or new, is judged by models that did not see its prompt: the
judgement is a function of pair and committee alone, the same at every door, in any order. A pair turned round gets the opposite
judgement exactly.

From margin to probability. m is the mean of the members' margins, each divided by its deviation. The recorded label is taken to be
the truth seen through symmetric noise:

    P(the record says so | m) = e + (1 - 2 e) sigmoid(m / T)

T and the rate of wrong records e are fitted on the cross-fitted margins, e with a Beta prior around one record in five
(committees of reward models disagree with about a quarter of HH-RLHF: arXiv 2410.01957 and 2401.06080). Then, by Bayes,

    P(the record is wrong | m, the record) = e (1 - sigmoid(m / T)) / P(the record says so | m)

which is the confidence of an Opposite verdict. Where the members know little, T is large, and nothing is turned round.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from assay_cleaning.calibration import calibrate, sigmoid, wilson
from assay_cleaning.features import VIEWS, View
from assay_data.bag_of_words import fit_bradley_terry
from assay_data.conversations import PreferencePair, prompt_key
from assay_data.errors import DataError
from assay_data.storage import ArtifactInfo, atomic_write, open_uri

FORMAT = "assay.cleaning_committee/1"
FOLDS = 5
FEWEST_PAIRS = 50
"""Pairs a committee needs at least."""


class TooFewPairs(ValueError):
    """There are too few pairs to fit a committee on."""


@dataclass(frozen=True, kw_only=True)
class Member:
    """A fitted model of one view and one fold.

    Attributes:
        view: what it looks at.
        idf: inverse document frequency of each feature.
        weights: what each feature is worth.
        scale: deviation of the view's cross-fitted margins, > 0.
    """

    view: View
    idf: dict[str, float]
    weights: dict[str, float]
    scale: float

    def score(self, features: Counter[str]) -> float:
        """Score of an answer by its features; only differences between answers mean anything."""
        total = squares = 0.0
        table = self._table
        for name, count in features.items():
            if name in table:
                idf, weight = table[name]
                value = count * idf
                squares += value * value
                total += value * weight
        return total / self._norm(squares)

    def shares(self, features: Counter[str]) -> list[tuple[str, float]]:
        """The features of an answer and what each adds to its score."""
        known = [(name, count * self._table[name][0]) for name, count in features.items() if name in self._table]
        norm = self._norm(sum(value * value for _, value in known))
        return [(name, value / norm * self._table[name][1]) for name, value in known]

    def _norm(self, squares: float) -> float:
        return ((math.sqrt(squares) + self.view.offset) or 1.0) * self.scale

    @cached_property
    def _table(self) -> dict[str, tuple[float, float]]:
        return {name: (idf, self.weights[name]) for name, idf in self.idf.items()}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What the committee says about a pair.

    Attributes:
        margin: mean of the members' margins, in deviations; > 0 where they prefer the chosen answer.
        chosen_is_better: probability that the chosen answer is the better one, before the record is taken into account; 0..1.
        record_is_wrong: probability that the recorded preference is the wrong way round; 0..1.
        votes: members that prefer the rejected answer.
        members: members asked.
        reasons: features that speak most for the answer they prefer, strongest first.
    """

    margin: float
    chosen_is_better: float
    record_is_wrong: float
    votes: int
    members: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Committee:
    """A fitted committee.

    Attributes:
        folds: the members that judge the prompts of each fold.
        temperature: T, > 0.
        noise: e, the estimated rate of wrong records; 0..0.5.
        pairs: pairs it was fitted on.
        correct: cross-fitted margins > 0 among them, ties as half.
        seed: of the fits' starts.
    """

    folds: tuple[tuple[Member, ...], ...]
    temperature: float
    noise: float
    pairs: int
    correct: float
    seed: int

    def judge(self, pair: PreferencePair) -> Judgement:
        """Judges a pair by the members that did not see its prompt."""
        members = self.folds[fold_of(pair)]
        features = [(member.view.features(pair.chosen), member.view.features(pair.rejected)) for member in members]
        margins = [member.score(chosen) - member.score(rejected) for member, (chosen, rejected) in zip(members, features, strict=True)]
        margin = math.fsum(margins) / len(margins)
        better = sigmoid(margin / self.temperature)
        wrong = self.noise * (1 - better) / (self.noise + (1 - 2 * self.noise) * better)
        return Judgement(
            margin=margin,
            chosen_is_better=better,
            record_is_wrong=wrong,
            votes=sum(value < 0 for value in margins),
            members=len(members),
            reasons=_reasons(members[0], *features[0], sign=1.0 if margin >= 0 else -1.0),
        )

    def accuracy(self) -> tuple[float, float, float]:
        """Cross-fitted agreement with the records, and its 95 % Wilson interval."""
        return (self.correct / self.pairs, *wilson(self.correct, self.pairs))

    @cached_property
    def sha256(self) -> str:
        """Hash of the file's uncompressed content."""
        return hashlib.sha256(self._content()).hexdigest()

    def save(self, uri: str) -> ArtifactInfo:
        """Writes the one file (gzipped JSON), atomically; equal committees have equal bytes."""
        data = gzip.compress(self._content(), compresslevel=6, mtime=0)
        with atomic_write(uri) as file:
            file.write(data)
        return ArtifactInfo(uri=uri, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data), rows=self.pairs)

    @classmethod
    def load(cls, uri: str) -> Committee:
        """Reads the file.

        Raises:
            DataError: where there is none, or it is no committee or damaged.
        """
        with open_uri(uri) as file:
            data = file.read()
        try:
            content: Any = json.loads(gzip.decompress(data))
            if content["format"] != FORMAT:
                raise DataError(uri, 0, "format", f"{content['format']!r}; this version reads {FORMAT}: fit the committee again")
            folds = tuple(
                tuple(
                    Member(
                        view=view,
                        idf=dict(zip(names, idf, strict=True)),
                        weights=dict(zip(names, weights, strict=True)),
                        scale=float(scale),
                    )
                    for view, (names, idf, weights, scale) in zip(VIEWS, fold, strict=True)
                )
                for fold in content["folds"]
            )
            if len(folds) != FOLDS:
                raise ValueError(f"{len(folds)} folds instead of {FOLDS}")
            return cls(
                folds=folds,
                temperature=float(content["temperature"]),
                noise=float(content["noise"]),
                pairs=int(content["pairs"]),
                correct=float(content["correct"]),
                seed=int(content["seed"]),
            )
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            raise DataError(uri, 0, "", f"not a committee as CreateCommitteeJob leaves it: {error!r}") from error

    def _content(self) -> bytes:
        folds = [
            [[list(member.idf), list(member.idf.values()), list(member.weights.values()), member.scale] for member in members]
            for members in self.folds
        ]
        facts = {"temperature": self.temperature, "noise": self.noise, "pairs": self.pairs, "correct": self.correct, "seed": self.seed}
        return json.dumps({"format": FORMAT, **facts, "folds": folds}, ensure_ascii=False, separators=(",", ":")).encode()


def fold_of(pair: PreferencePair) -> int:
    """The fold of a pair's prompt."""
    return int(prompt_key(pair)[:8], 16) % FOLDS


def fit_committee(pairs: Sequence[PreferencePair], *, seed: int = 0, progress: Callable[[int, int], None] | None = None) -> Committee:
    """Fits a committee.

    Args:
        pairs: at least `FEWEST_PAIRS`, with prompts in at least two folds; pairs without a direction (empty, repeated answers)
            should be left out.
        seed: of the order of the pairs and the starts of the fits.
        progress: called after each fit with the fits done and all of them; may raise to stop.

    Raises:
        TooFewPairs: where there are too few.
    """
    folds = np.array([fold_of(pair) for pair in pairs], dtype=np.int64)
    if len(pairs) < FEWEST_PAIRS or len(set(folds.tolist())) < 2:
        raise TooFewPairs(f"{len(pairs)} usable pairs of {len(set(folds.tolist()))} folds; at least {FEWEST_PAIRS} of 2 are wanted")
    order = np.random.default_rng(seed).permutation(len(pairs))
    texts = [pairs[index].chosen for index in order] + [pairs[index].rejected for index in order]
    folds = folds[order]
    by_view: list[list[Member]] = []
    summed = np.zeros(len(pairs))
    for position, view in enumerate(VIEWS):
        counts = [view.features(text) for text in texts]
        members: list[Member] = []
        margins = np.zeros(len(pairs))
        for fold in range(FOLDS):
            member = _fit_member(view, counts, folds != fold, seed=seed)
            members.append(member)
            for index in np.flatnonzero(folds == fold):
                margins[index] = member.score(counts[index]) - member.score(counts[index + len(pairs)])
            if progress:
                progress(position * FOLDS + fold + 1, len(VIEWS) * FOLDS)
        scale = float(margins.std()) or 1.0
        by_view.append([Member(view=view, idf=member.idf, weights=member.weights, scale=scale) for member in members])
        summed += margins / scale
    summed /= len(VIEWS)
    temperature, noise = calibrate(summed)
    return Committee(
        folds=tuple(tuple(members[fold] for members in by_view) for fold in range(FOLDS)),
        temperature=temperature,
        noise=noise,
        pairs=len(pairs),
        correct=float((summed > 0).sum() + 0.5 * (summed == 0).sum()),
        seed=seed,
    )


def _fit_member(view: View, counts: Sequence[Counter[str]], train: npt.NDArray[np.bool_], *, seed: int) -> Member:
    rows = np.flatnonzero(train).tolist()
    answers = [counts[index] for index in rows] + [counts[index + len(train)] for index in rows]
    seen: Counter[str] = Counter()
    for answer in answers:
        seen.update(answer.keys())
    names = sorted(name for name, count in seen.items() if count >= view.min_count)
    idf = {name: math.log((1 + len(answers)) / (1 + seen[name])) + 1 for name in names}
    columns = {name: column for column, name in enumerate(names)}
    indices: list[int] = []
    values: list[float] = []
    starts = [0]
    for answer in answers:
        found = sorted((columns[name], count * idf[name]) for name, count in answer.items() if name in columns)
        norm = (math.sqrt(sum(value * value for _, value in found)) + view.offset) or 1.0
        indices.extend(column for column, _ in found)
        values.extend(value / norm for _, value in found)
        starts.append(len(indices))
    matrix = scipy.sparse.csr_array((np.array(values), np.array(indices, dtype=np.int32), starts), shape=(len(answers), len(names)))
    weights = fit_bradley_terry(matrix[: len(rows)] - matrix[len(rows) :], l2=view.l2, seed=seed)
    return Member(view=view, idf=idf, weights=dict(zip(names, weights.tolist(), strict=True)), scale=1.0)


def _reasons(member: Member, chosen: Counter[str], rejected: Counter[str], *, sign: float, limit: int = 5) -> tuple[str, ...]:
    shares: dict[str, float] = {}
    for features, side in ((chosen, sign), (rejected, -sign)):
        for name, share in member.shares(features):
            shares[name] = shares.get(name, 0.0) + side * share
    ranked = sorted(shares.items(), key=lambda item: (-item[1], item[0]))
    return tuple(name for name, share in ranked[:limit] if share > 0)
