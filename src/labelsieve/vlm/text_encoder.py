"""Learned prompts through a text encoder at the price of the class names, exactly.

All prompts of a set begin alike: start token and M learned vectors, then the tokens of a class name. In a causal one
no token sees what follows it, so the hidden states of that common beginning are the same for all classes. Here the
names of many classes stand in one row behind one common beginning, at the positions that they would have alone, and a
mask lets each name see the beginning and itself. Nothing is padded but the ends of rows, and the encoder's own layers
run as they are: features and gradients are those of encoding each prompt alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labelsieve.core.memory import in_chunks

# Names fill a row up to so many times the length of the common beginning, which each row computes again; longer rows
# would spend more on attention than that saves.
_TIMES = 8
_SHORTEST = 64
# More tokens than this are encoded in parts, of which only the features are kept for the backward pass.
MOST_TOKENS = 8_192


@dataclass(frozen=True, eq=False)
class CausalText:
    """The parts of a causal text encoder.

    Attributes:
        words: The table of token embeddings.
        positions: The table of position embeddings, (context_length, width).
        blocks: Takes hidden states (R, L, width) and a mask (R, L, L), true where the row's token may see the column's,
            through all transformer blocks.
        finish: Takes hidden states (K, width) of end tokens through the last norm and the projection: (K, D).
        end: The token at which the feature is read.
    """

    words: nn.Embedding
    positions: Tensor
    blocks: Callable[[Tensor, Tensor], Tensor]
    finish: Callable[[Tensor], Tensor]
    end: int


@dataclass(frozen=True, eq=False)
class _Rows:
    """Where the tokens of some names stand.

    Attributes:
        token_ids: (R, L): the tokens behind the common beginning; 0 where there is none.
        positions: (R, L): what would be their positions if each name stood alone.
        names: (R, L): which name a token belongs to, -1 where it is none.
        row: (K,): the row of each name.
        column: (K,): the place of its end token there.
    """

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    names: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]


def encode_behind_prefix(encoder: CausalText, context: Tensor, token_ids: Tensor, *, start: int) -> Tensor:
    """Encodes prompts with learned context vectors.

    Args:
        encoder: The text encoder.
        context: The learned vectors, (M, width).
        token_ids: On the CPU, (K, T): start tokens, M place holders, name, end token, anything.
        start: Number of start tokens.

    Returns:
        Features (K, D), not normalised.
    """
    ids, device = token_ids.numpy(), context.device
    length = start + len(context)
    beginning = encoder.words(token_ids[0, :start].to(device)), encoder.positions[:length]
    rows = _lay_out(ids, (ids == encoder.end).argmax(axis=1), length)

    def encode(first: int, last: int) -> Tensor:
        mine = (rows.row >= first) & (rows.row < last)
        part, names = slice(first, last), torch.from_numpy(rows.names[first:last]).to(device)
        words = encoder.words(torch.from_numpy(rows.token_ids[part]).to(device))
        words = words + encoder.positions[torch.from_numpy(rows.positions[part]).to(device)]
        prefix = torch.cat([beginning[0].to(context.dtype), context]) + beginning[1]
        hidden = torch.cat([prefix.to(words.dtype).expand(len(words), -1, -1), words], dim=1)
        at = torch.from_numpy(rows.row[mine] - first).to(device), torch.from_numpy(rows.column[mine]).to(device)
        return encoder.finish(encoder.blocks(hidden, _visible(names, length))[at[0], length + at[1]])

    at_once = max(1, MOST_TOKENS // (length + rows.names.shape[1]))
    return in_chunks(encode, count=len(rows.names), chunk_size=at_once, device=device)


def _lay_out(ids: NDArray[np.int64], ends: NDArray[np.int64], length: int) -> _Rows:
    """Puts the names behind each other into rows of about the same length.

    Args:
        ids: (K, T).
        ends: Place of the end token of each, (K,).
        length: Of the common beginning.
    """
    lengths = ends + 1 - length
    begin = np.cumsum(lengths) - lengths
    _, first, row = np.unique(begin // max(_TIMES * length, _SHORTEST), return_index=True, return_inverse=True)
    column = begin - begin[first][row]
    shape = (len(first), int((column + lengths).max()))
    token_ids, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    names = np.full(shape, -1, dtype=np.int64)
    name = np.repeat(np.arange(len(ids)), lengths)
    inside = np.arange(len(name)) - begin[name]
    at = row[name], column[name] + inside
    token_ids[at], positions[at], names[at] = ids[name, length + inside], length + inside, name
    return _Rows(token_ids, positions, names, row, column + lengths - 1)


def _visible(names: Tensor, length: int) -> Tensor:
    """Returns what each token may see, (R, length + L, length + L), of the names (R, L) that the tokens belong to."""
    rows, width = names.shape
    visible = torch.zeros(rows, length + width, length + width, dtype=torch.bool, device=names.device)
    visible[:, :, :length] = True
    visible[:, :length, :length] = torch.ones(length, length, dtype=torch.bool, device=names.device).tril()
    same = names[:, :, None] == names[:, None, :]
    visible[:, length:, length:] = same.tril()  # within a row, a token's place and its position grow together
    return visible
