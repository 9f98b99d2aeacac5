"""Rotary positions on rows of heads."""

from __future__ import annotations

import torch

from assay_reward.models.packed.linears import Weights


def rotate(made: torch.Tensor, angles: torch.Tensor) -> None:
    """Rotates [rows, heads, size] in place; the halves that rope pairs lie side by side here, as complex numbers do.

    Args:
        made: of any type.
        angles: [rows, 1, size / 2], complex.
    """
    if made.dtype == torch.float32:
        torch.view_as_complex(made.view(*made.shape[:-1], -1, 2)).mul_(angles)
    else:
        wide = made.float()
        torch.view_as_complex(wide.view(*wide.shape[:-1], -1, 2)).mul_(angles)
        made.copy_(wide)


def complex_angles(cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """What `rotate` takes, from what the rotary modules of transformers give for the positions of one sequence: [1, positions, size]."""
    half = cosines.shape[-1] // 2
    return torch.complex(cosines[0, :, :half].float(), sines[0, :, :half].float())[:, None]


def paired(rows: torch.Tensor, size: int) -> torch.Tensor:
    """Rows of heads reordered so that the halves that rope pairs lie side by side; products of queries and keys stay what they are."""
    return rows.reshape(-1, 2, size // 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape).contiguous()


def side_by_side(weights: Weights, size: int) -> Weights:
    """A layer that makes heads, with their halves so."""
    return Weights(weight=paired(weights.weight, size), bias=None if weights.bias is None else paired(weights.bias, size))
