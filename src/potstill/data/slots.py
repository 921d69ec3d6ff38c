"""How many positions each text of a batch gets where texts lie side by side, instead of one above the other."""

# B texts

from __future__ import annotations

import numpy as np

SHORTEST = 0.87  # of a group, in lengths of its longest: slots per token stay below 1 / 0.87 = 1.15


def slot_lengths(lengths_B: np.ndarray) -> np.ndarray:
    """For every text at least its own length, and one length for all texts that are nearly as long.

    Texts of one length can be computed together without a copy. Each length of its own would pad nothing and cost a
    call a length; the fewer groups, the more padding. At least one position a text.
    """
    order_B = np.argsort(-lengths_B, kind="stable")
    slots_B = np.ones_like(lengths_B)
    start = 0
    while start < len(order_B):
        longest = max(1, lengths_B[order_B[start]])
        same = order_B[start:][lengths_B[order_B[start:]] >= SHORTEST * longest]
        slots_B[same] = longest
        start += max(1, len(same))
    return slots_B
