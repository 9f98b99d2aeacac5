"""A reward model that counts words: Bradley-Terry on TF-IDF unigrams of the answer.

Fast, deterministic and without torch: the demo's gold judge, a baseline, and a member of the cleaning committee's family.
A text's vector is divided by its length plus `LENGTH_OFFSET`, so that an answer of one good word is worth little;
with the plain L2 norm such an answer would be the best of all. Scores are standardised to mean 0 and deviation 1
on the answers the model was fitted on.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.optimize
import scipy.sparse

from assay_data.conversations import PreferencePair
from assay_data.errors import DataError
from assay_data.fingerprints import BAG_OF_WORDS_FILE
from assay_data.storage import atomic_write

Vector = npt.NDArray[np.float64]

LENGTH_OFFSET = 6.0
"""Added to the norm of a text's vector before it is divided by it."""

_FORMAT = "assay.bag_of_words/1"
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def words_of(text: str) -> list[str]:
    """The words of a text, lower case, typographic apostrophes made plain."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))


@dataclass(frozen=True, kw_only=True)
class BagOfWordsModel:
    """A fitted model.

    Attributes:
        vocabulary: the words, sorted; length v.
        idf: inverse document frequency of each word, [v], > 0.
        weights: what each word is worth, [v], in units of the unstandardised score.
        mean: mean of the unstandardised score on the answers of the fit.
        std: its standard deviation there, > 0.
    """

    vocabulary: tuple[str, ...]
    idf: Vector
    weights: Vector
    mean: float
    std: float

    def score(self, texts: Sequence[str]) -> Vector:
        """Standardised scores of answers, [n] float64; of each text alone, whatever its neighbours."""
        raw = vectorise(texts, self._columns, self.idf) @ self.weights
        return np.asarray((raw - self.mean) / self.std, dtype=np.float64)

    def strongest_words(self, text: str, limit: int = 5) -> list[tuple[str, float]]:
        """The words of an answer that move its score most, with their shares of it, largest first."""
        row = vectorise([text], self._columns, self.idf).tocoo()
        shares = [
            (self.vocabulary[column], float(value * self.weights[column] / self.std))
            for column, value in zip(row.col, row.data, strict=True)
        ]
        return sorted(shares, key=lambda share: (-abs(share[1]), share[0]))[:limit]

    def to_bytes(self) -> bytes:
        """The file's content; equal models have equal bytes."""
        content = {
            "format": _FORMAT,
            "length_offset": LENGTH_OFFSET,
            "mean": self.mean,
            "std": self.std,
            "vocabulary": list(self.vocabulary),
            "idf": self.idf.tolist(),
            "weights": self.weights.tolist(),
        }
        return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()

    @cached_property
    def weights_sha256(self) -> str:
        """SHA-256 of the file, as `assay_data.fingerprints` has it."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    def save(self, folder: str | Path) -> None:
        """Writes ``bag_of_words.json`` into a local folder, atomically."""
        with atomic_write(str(Path(folder) / BAG_OF_WORDS_FILE)) as file:
            file.write(self.to_bytes())

    @classmethod
    def load(cls, folder: str | Path) -> BagOfWordsModel:
        """The model of a folder, or of the file itself.

        Raises:
            DataError: where there is none or it is damaged.
        """
        path = Path(folder)
        path = path / BAG_OF_WORDS_FILE if path.is_dir() else path
        try:
            content: Any = json.loads(path.read_bytes())
            if not isinstance(content, dict) or content.get("format") != _FORMAT or content.get("length_offset") != LENGTH_OFFSET:
                raise DataError(str(path), 0, "format", f"not a bag-of-words model; {_FORMAT} is wanted")
            model = cls(
                vocabulary=tuple(content["vocabulary"]),
                idf=np.array(content["idf"], dtype=np.float64),
                weights=np.array(content["weights"], dtype=np.float64),
                mean=float(content["mean"]),
                std=float(content["std"]),
            )
        except FileNotFoundError as error:
            raise DataError(str(path), 0, "", "there is no such file") from error
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(str(path), 0, "", f"not a whole bag-of-words model: {error!r}") from error
        width = len(model.vocabulary)
        finite = (
            np.isfinite(model.weights).all() and np.isfinite(model.idf).all() and math.isfinite(model.mean) and math.isfinite(model.std)
        )
        if model.idf.shape != (width,) or model.weights.shape != (width,) or not finite or model.std <= 0:
            raise DataError(str(path), 0, "weights", f"idf and weights must be {width} finite numbers each, std above 0")
        return model

    @cached_property
    def _columns(self) -> dict[str, int]:
        return {word: column for column, word in enumerate(self.vocabulary)}


def fit_bag_of_words(pairs: Sequence[PreferencePair], *, l2: float = 2.0, min_count: int = 5, seed: int = 0) -> BagOfWordsModel:
    """Fits the model on pairs by L-BFGS.

    Args:
        pairs: at least 2, of which one with different answers.
        l2: strength of the pull of the weights to zero, per word; > 0.
        min_count: answers a word must be in to have a weight; where the set is so small that no word is, all words have one.
        seed: of the random start; the loss is strictly convex, so that the model depends on it only beyond the sixth digit or so.

    Raises:
        ValueError: where there is nothing to learn from.
    """
    if l2 <= 0:
        raise ValueError(f"l2 is {l2}; above 0 is wanted")
    usable = [pair for pair in pairs if pair.chosen != pair.rejected]
    if len(usable) < 2:
        raise ValueError(f"{len(usable)} pairs with different answers; at least 2 are wanted")
    answers = [pair.chosen for pair in usable] + [pair.rejected for pair in usable]
    seen = Counter(word for answer in answers for word in set(words_of(answer)))
    vocabulary = sorted(word for word, count in seen.items() if count >= min_count) or sorted(seen)
    if not vocabulary:
        raise ValueError("the answers hold no words")
    idf = np.array([math.log((1 + len(answers)) / (1 + seen[word])) + 1 for word in vocabulary])
    matrix = vectorise(answers, {word: column for column, word in enumerate(vocabulary)}, idf)
    weights = fit_bradley_terry(matrix[: len(usable)] - matrix[len(usable) :], l2=l2, seed=seed)
    raw = matrix @ weights
    std = float(raw.std())
    if not std > 0:
        raise ValueError("the answers differ in no word that occurs often enough")
    return BagOfWordsModel(vocabulary=tuple(vocabulary), idf=idf, weights=weights, mean=float(raw.mean()), std=std)


def vectorise(texts: Sequence[str], columns: dict[str, int], idf: Vector) -> Any:
    """TF-IDF rows of texts divided by their norm plus `LENGTH_OFFSET`: sparse, [n, v]."""
    indices: list[int] = []
    values: list[float] = []
    starts = [0]
    for text in texts:
        counts = Counter(columns[word] for word in words_of(text) if word in columns)
        found = sorted(counts)
        row = [counts[column] * idf[column] for column in found]
        norm = math.sqrt(math.fsum(value * value for value in row)) + LENGTH_OFFSET
        indices.extend(found)
        values.extend(value / norm for value in row)
        starts.append(len(indices))
    return scipy.sparse.csr_array(
        (np.array(values, dtype=np.float64), np.array(indices, dtype=np.int32), starts), shape=(len(texts), len(idf))
    )


def fit_bradley_terry(differences: Any, *, l2: float, seed: int = 0) -> Vector:
    """Weights under which each difference chosen - rejected is most likely positive: minimises sum log(1 + exp(-d w)) + l2 / 2 |w|^2.

    Args:
        differences: sparse or dense, [n, v].
        l2: > 0.
        seed: of the random start.
    """
    transposed = differences.T.tocsr() if scipy.sparse.issparse(differences) else differences.T

    def loss(weights: Vector) -> tuple[float, Vector]:
        margins = differences @ weights
        value = float(np.logaddexp(0.0, -margins).sum() + 0.5 * l2 * (weights @ weights))
        gradient = l2 * weights - transposed @ (1.0 / (1.0 + np.exp(np.clip(margins, -500, 500))))
        return value, gradient

    start = np.random.default_rng(seed).normal(scale=1e-3, size=differences.shape[1])
    found = scipy.optimize.minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500, "ftol": 1e-10, "gtol": 1e-6})
    return np.asarray(found.x, dtype=np.float64)
