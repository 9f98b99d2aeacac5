"""Choosing the next token: temperature, nucleus, and noise that is the same in every run."""

from __future__ import annotations

import torch

_BLOCK_ELEMENTS = 1 << 23


def noise_of(seed: int, *, answers: int, tokens: int) -> torch.Tensor:
    """Uniform numbers in [0, 1), float64 [answers, tokens]: row j is the noise of a prompt's j-th answer."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(answers, tokens, dtype=torch.float64, generator=generator)


def choose(logits: torch.Tensor, *, temperature: float, top_p: float, uniform: torch.Tensor | None) -> torch.Tensor:
    """The next token of each row.

    Args:
        logits: float [rows, vocabulary]; minus infinity bars a token.
        temperature: >= 0; 0 takes the likeliest token, the first of equals.
        top_p: mass of the nucleus in (0, 1]: the fewest likeliest tokens that reach it stay.
        uniform: float64 [rows] in [0, 1): where on the cumulative distribution each row's token lies; None only when greedy.

    Returns:
        int64 [rows].
    """
    if temperature == 0 or uniform is None:
        return logits.argmax(-1)
    rows, vocabulary = logits.shape
    block = max(1, _BLOCK_ELEMENTS // vocabulary)
    blocks = [_draw(logits[i : i + block], temperature, top_p, uniform[i : i + block]) for i in range(0, rows, block)]
    return torch.cat(blocks)


def _draw(logits: torch.Tensor, temperature: float, top_p: float, uniform: torch.Tensor) -> torch.Tensor:
    probabilities = torch.softmax(logits.float() / temperature, -1).double()
    if top_p < 1:
        probabilities = _nucleus(probabilities, top_p)
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1:]
    # Never the total itself: the first token whose cumulative mass exceeds the mark has a probability above 0.
    mark = torch.minimum(uniform[:, None] * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, mark, right=True)[:, 0]


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(outside, 0.0))
