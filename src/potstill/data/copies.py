"""The repair of contamination: training examples go, test examples stay."""

from __future__ import annotations

import logging

from datasets import Dataset

from potstill.audit.contamination import is_copy
from potstill.data.splits import check_not_empty, select
from potstill.data.texts import texts_of

logger = logging.getLogger(__name__)


def without_copies(tables: dict[str, Dataset], how: str) -> dict[str, Dataset]:
    """Train and validation without examples whose prompt is that of a test example, exactly or nearly; test as it is.

    how: exact or near, as `is_copy` has them. Raises UserError where nothing is left.
    """
    test, kept = texts_of(tables["test"]), dict(tables)
    for split in ("train", "validation"):
        dropped = is_copy(test, texts_of(tables[split]), how)
        kept[split] = select(tables[split], ~dropped)
        check_not_empty(split, kept[split])
        if num_dropped := int(dropped.sum()):
            text = "data.drop_copies=%s: %d of %d %s examples stand in test and are dropped."
            logger.info(text, how, num_dropped, len(dropped), split)
    return kept
