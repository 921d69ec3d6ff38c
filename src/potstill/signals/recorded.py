"""A teacher that is not here: of its text, the log-probabilities that came with it."""

# N rows, K known classes of a row, T known classes of all rows

from __future__ import annotations

from collections.abc import Iterable

import torch

from potstill.data.batch import Batch
from potstill.data.token_logprobs import Known
from potstill.losses.sparse import SparseLogits
from potstill.signals.codecs import Stored, TopK
from potstill.signals.packing import pack_ids
from potstill.signals.protocol import Needs, Signal

CODEC = TopK(top_k=0, top_p=0.0)  # reads as many classes of a row as were written


class RecordedTeacher:
    """Answers with what is on record of each example, by its key; some classes of each row, and no model.

    examples: keys and what is known of them. Kept packed: two bytes an id, two bytes a log-probability.
    """

    model = None
    is_sparse = True

    def __init__(self, examples: Iterable[tuple[str, Known]], vocabulary_size: int) -> None:
        self.layout = {"vocabulary_size": vocabulary_size}
        self.records = {key: _packed(known, vocabulary_size) for key, known in examples}

    def signal(self, batch: Batch, needs: Needs) -> Signal:
        if not needs.logits:
            return Signal()
        device = batch.labels.device
        if not batch.keys:
            none = torch.zeros(0, 1, device=device)
            return Signal(sparse=SparseLogits(none, none.long()))
        found = CODEC.decode([self.records[key] for key in batch.keys], self.layout)
        return Signal(sparse=SparseLogits(found.log_p.float(), found.ids).to(device))

    def to(self, device: torch.device) -> RecordedTeacher:  # noqa: ARG002  records go with their batch
        return self


def _packed(known: Known, vocabulary_size: int) -> Stored:
    counts, values = known.counts.astype("<u2").tobytes(), known.log_p.astype("<f2").tobytes()
    return Stored(counts + pack_ids(known.ids, vocabulary_size) + values, len(known.counts))
