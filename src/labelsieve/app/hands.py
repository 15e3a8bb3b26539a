"""What a browser is to have next, and how."""

from __future__ import annotations

from typing import Any, NamedTuple


class Hand(NamedTuple):
    """Images that a browser is to have, and how."""

    rows: list[int]
    mode: str
    queue: str


def joined(hands: list[Hand]) -> list[Hand]:
    """Joins those in a row that are alike: cards are made quicker together."""
    found: list[Hand] = []
    for hand in hands:
        if found and found[-1].mode == hand.mode:
            found[-1].rows.extend(hand.rows)
        else:
            found.append(hand)
    return found


def bundled(cards: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns several cards as one that has them as its members."""
    return [{**cards[0], "members": cards}] if len(cards) > 1 else cards
