"""Encodes learned prompts with a shared prefix, at the cost of the class names alone.

All prompts of a set have the same prefix: the start token and M learned vectors, followed by the tokens of a class
name. In a causal text encoder no token attends to later ones, so the hidden states of the prefix are the same for all
classes. Here the names of many classes are packed into one row behind one prefix, with the position embeddings that
they would have alone, and a mask lets each name attend to the prefix and itself. Only the ends of rows are padded, and
the layers of the encoder are not changed: features and gradients equal those of encoding each prompt separately.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labelsieve.core.memory import checkpointed_chunks

# Maximum length of the names in a row, as a multiple of the prefix, which each row encodes again; longer rows would
# cost more attention than they save.
_NAMES_TO_PREFIX = 8
_MIN_LENGTH = 64
# Tokens in a chunk; for the backward pass only the features of a chunk are kept.
MAX_TOKENS = 8_192


@dataclass(frozen=True, eq=False)
class CausalTextEncoder:
    """The parts of a causal text encoder.

    Attributes:
        token_embeddings: The table of token embeddings.
        positions: The table of position embeddings, (context_length, width).
        blocks: Passes hidden states (R, L, width) with a mask (R, L, L), true where the token of a row attends to that
            of a column, through all transformer blocks.
        finish: Passes hidden states (K, width) of end tokens through the last norm and the projection: (K, D).
        end: The token at which the encoder pools.
    """

    token_embeddings: nn.Embedding
    positions: Tensor
    blocks: Callable[[Tensor, Tensor], Tensor]
    finish: Callable[[Tensor], Tensor]
    end: int


@dataclass(frozen=True, eq=False)
class _PackedNames:
    """The tokens of names, packed into rows.

    Attributes:
        token_ids: (R, L): the tokens behind the prefix; 0 where there is none.
        positions: (R, L): their positions in a separate prompt.
        names: (R, L): index of the name that a token belongs to, -1 for padding.
        row: (K,): the row of each name.
        column: (K,): the column of its end token.
    """

    token_ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    names: NDArray[np.int64]
    row: NDArray[np.int64]
    column: NDArray[np.int64]


def encode_with_shared_prefix(encoder: CausalTextEncoder, context: Tensor, token_ids: Tensor, *, start: int) -> Tensor:
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
    prefix_parts = encoder.token_embeddings(token_ids[0, :start].to(device)), encoder.positions[:length]
    rows = _pack(ids, (ids == encoder.end).argmax(axis=1), length)

    def encode(first: int, last: int) -> Tensor:
        in_chunk = (rows.row >= first) & (rows.row < last)
        chunk, names = slice(first, last), torch.from_numpy(rows.names[first:last]).to(device)
        embeddings = encoder.token_embeddings(torch.from_numpy(rows.token_ids[chunk]).to(device))
        embeddings = embeddings + encoder.positions[torch.from_numpy(rows.positions[chunk]).to(device)]
        prefix = torch.cat([prefix_parts[0].to(context.dtype), context]) + prefix_parts[1]
        hidden = torch.cat([prefix.to(embeddings.dtype).expand(len(embeddings), -1, -1), embeddings], dim=1)
        ends = (
            torch.from_numpy(rows.row[in_chunk] - first).to(device),
            torch.from_numpy(rows.column[in_chunk]).to(device),
        )
        return encoder.finish(encoder.blocks(hidden, _visible(names, length))[ends[0], length + ends[1]])

    chunk_size = max(1, MAX_TOKENS // (length + rows.names.shape[1]))
    return checkpointed_chunks(encode, count=len(rows.names), chunk_size=chunk_size, device=device)


def _pack(ids: NDArray[np.int64], ends: NDArray[np.int64], length: int) -> _PackedNames:
    """Packs the names into rows of about the same length.

    Args:
        ids: (K, T).
        ends: Position of the end token of each, (K,).
        length: Of the prefix.
    """
    lengths = ends + 1 - length
    starts = np.cumsum(lengths) - lengths
    _, first, row = np.unique(
        starts // max(_NAMES_TO_PREFIX * length, _MIN_LENGTH), return_index=True, return_inverse=True
    )
    column = starts - starts[first][row]
    shape = (len(first), int((column + lengths).max()))
    token_ids, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    names = np.full(shape, -1, dtype=np.int64)
    name = np.repeat(np.arange(len(ids)), lengths)
    offset = np.arange(len(name)) - starts[name]
    targets = row[name], column[name] + offset
    token_ids[targets], positions[targets], names[targets] = ids[name, length + offset], length + offset, name
    return _PackedNames(token_ids, positions, names, row, column + lengths - 1)


def _visible(names: Tensor, length: int) -> Tensor:
    """Returns the attention mask (R, length + L, length + L) for names (R, L) that tokens belong to."""
    rows, width = names.shape
    visible = torch.zeros(rows, length + width, length + width, dtype=torch.bool, device=names.device)
    visible[:, :, :length] = True
    visible[:, :length, :length] = torch.ones(length, length, dtype=torch.bool, device=names.device).tril()
    same = names[:, :, None] == names[:, None, :]
    visible[:, length:, length:] = same.tril()  # positions increase within each name
    return visible
