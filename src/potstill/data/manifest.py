"""The frozen split: a hash of every item, written when a run begins, compared when it is evaluated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from potstill.data.content import hash_all

SCHEMA_VERSION = 1
FILE = "data_manifest.json"


def manifest_of_items(items: Mapping[str, list[str]]) -> dict[str, Any]:
    """items: by split the hash of each item, of all that it holds, in order."""
    return {
        "schema_version": SCHEMA_VERSION,
        "splits": {
            split: {"n": len(hashes), "hash": hash_all(hashes), "items": hashes} for split, hashes in items.items()
        },
    }


def changed_items(recorded: Mapping[str, Any], now: Mapping[str, Any], split: str) -> tuple[list[str], list[str]]:
    """Hashes of the items that `split` has lost and gained since it was recorded; both empty where it is the same."""
    before, after = (Counter(each["splits"][split]["items"]) for each in (recorded, now))
    return sorted((before - after).elements()), sorted((after - before).elements())
