"""A key-value cache with room to grow.

transformers' `DynamicCache` copies every layer's whole history for each new token; for small models that is two thirds of the time.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """A layer that writes new states into spare room and copies only when that is used up; `keys` and `values` are views."""

    keys: torch.Tensor
    values: torch.Tensor
    _key_room: torch.Tensor
    _value_room: torch.Tensor

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Takes type and device of the first states."""
        super().lazy_initialization(key_states, value_states)
        self._adopt(key_states[:, :, :0], value_states[:, :, :0])

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Appends states of shape [batch, heads, new, dim]; returns all states, [batch, heads, total, dim]."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.keys.shape[-2]
        total = held + key_states.shape[-2]
        if total > self._key_room.shape[-2]:
            self._key_room = _roomier(self.keys, key_states, total)
            self._value_room = _roomier(self.values, value_states, total)
        self._key_room[:, :, held:total] = key_states
        self._value_room[:, :, held:total] = value_states
        self.keys = self._key_room[:, :, :total]
        self.values = self._value_room[:, :, :total]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keeps, and repeats, the rows of the batch that `indices` names."""
        self._adopt(self.keys[indices], self.values[indices])

    def _adopt(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        self.keys = self._key_room = keys
        self.values = self._value_room = values


def _roomier(held: torch.Tensor, new: torch.Tensor, total: int) -> torch.Tensor:
    batch, heads, _, dim = new.shape
    room = new.new_empty(batch, heads, total + _ROOM, dim)
    room[:, :, : held.shape[-2]] = held
    return room


def roomy_cache(config: Any) -> DynamicCache:
    """An empty cache for a model; layers that are no plain attention (sliding windows, …) stay as transformers makes them."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
