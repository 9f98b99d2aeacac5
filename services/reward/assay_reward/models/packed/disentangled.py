"""DeBERTa's attention to positions: by how far a key is from a query, weighed with the one's content and with the other's.

What a distance is worth to a query is the same wherever the two stand, so all distances are one product [queries, distances], and the
part for (query, key) is read off it by a view whose rows begin one distance later each: nothing is gathered.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position


class Disentangled:
    """The positions of one layer."""

    def __init__(self, attention: Any, embeddings: torch.Tensor) -> None:
        """Projects the embeddings of distances, which every sequence has alike.

        Args:
            attention: the layer's `DisentangledSelfAttention`.
            embeddings: [distances, width], normed as the encoder norms them.
        """
        kinds = attention.pos_att_type
        self._heads = int(attention.num_attention_heads)
        self._span = int(attention.pos_ebd_size)
        self._buckets = int(attention.position_buckets)
        self._furthest = int(attention.max_relative_positions)
        embeddings = embeddings[: 2 * self._span]
        shared = attention.share_att_key
        with torch.inference_mode():
            self._to_position = self._to_content = None
            if "c2p" in kinds:
                self._to_position = self._split((attention.key_proj if shared else attention.pos_key_proj)(embeddings))
            if "p2c" in kinds:
                self._to_content = self._split((attention.query_proj if shared else attention.pos_query_proj)(embeddings))
        size = int(attention.attention_head_size)
        self.scale = 1.0 / math.sqrt(size * (1 + ("c2p" in kinds) + ("p2c" in kinds)))

    def of(self, longest: int) -> Distances:
        """Laid out for sequences of so many tokens or fewer."""
        apart = torch.arange(longest - 1, -longest, -1)
        if self._buckets > 0 and self._furthest > 0:
            apart = make_log_bucket_position(apart, self._buckets, self._furthest).long()
        last = 2 * self._span - 1
        to_position = None if self._to_position is None else self._to_position[:, (apart + self._span).clamp_(0, last)]
        to_content = None if self._to_content is None else self._to_content[:, (self._span - apart).clamp_(0, last)]
        return Distances(longest, self.scale, to_position, to_content)

    def _split(self, projected: torch.Tensor) -> torch.Tensor:
        """[heads, distances, size]."""
        return projected.view(len(projected), self._heads, -1).transpose(0, 1).contiguous()


class Distances:
    """What each distance is worth, from the furthest key before a query to the furthest after it; a sequence uses those in its reach."""

    def __init__(self, longest: int, scale: float, to_position: torch.Tensor | None, to_content: torch.Tensor | None) -> None:
        """Takes tables [heads, 2 * longest - 1, size] and the scale of all products."""
        self._longest = longest
        self.scale = scale
        self._to_position = to_position
        self._to_content = to_content

    def bias(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """What is added to the scaled products of a sequence's queries and keys, [heads, tokens, size] each: [1, heads, tokens, tokens]."""
        total = None
        if self._to_position is not None:
            total = self._read(query, self._to_position)
        if self._to_content is not None:
            other = self._read(key, self._to_content).transpose(1, 2)
            total = other if total is None else total + other
        assert total is not None
        return (total * self.scale).contiguous()[None]

    def _read(self, content: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        """[heads, tokens, tokens]: what the content of each token makes of its distance to each other."""
        tokens = content.shape[1]
        products = torch.matmul(content, table[:, self._longest - tokens : self._longest + tokens - 1].transpose(1, 2))
        reach = 2 * tokens - 1
        return products.as_strided((len(products), tokens, tokens), (tokens * reach, reach - 1, 1), tokens - 1)
