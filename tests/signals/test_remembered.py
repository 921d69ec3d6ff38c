"""A teacher with a memory: the same answers, paid for once."""

from __future__ import annotations

import pytest
import torch

from potstill.data.batch import Batch
from potstill.errors import UserError
from potstill.models.task import TASKS
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs, SignalSource
from potstill.signals.remembered import RememberedTeacher
from potstill.tracking.memory import MemoryInCheckpoints
from tests.models.tiny import embedding_batch, tiny_model

from .tiny import TAP, classifier, language_model, unlabelled

TEXT = TASKS["text_classification"]
TEXTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
LOGITS = Needs(logits=True)


class Counted(LiveTeacher):
    """Counts the examples that the model is run on."""

    num_examples = 0

    def signal(self, batch: Batch, needs: Needs):
        self.num_examples += len(batch)
        return super().signal(batch, needs)


@pytest.fixture
def live() -> Counted:
    return Counted(classifier(), TEXT, [1, 0, 2])


def batch_of(*texts: int) -> Batch:
    return unlabelled(*(TEXTS[text] for text in texts))


def test_it_is_a_source_of_signals(live: Counted):
    source: SignalSource = RememberedTeacher(live)
    assert not isinstance(source, torch.nn.Module)


def test_only_unseen_examples_reach_the_model(live: Counted):
    remembered = RememberedTeacher(live)
    remembered.signal(batch_of(0, 1), LOGITS)
    remembered.signal(batch_of(1, 2, 0), LOGITS)
    remembered.signal(batch_of(2, 1), LOGITS)
    assert live.num_examples == 3


def test_values_and_order_are_those_of_the_live_teacher(live: Counted):
    remembered = RememberedTeacher(live)
    remembered.signal(batch_of(0, 1), LOGITS)
    batch = batch_of(1, 2, 0)
    torch.testing.assert_close(remembered.signal(batch, LOGITS).logits, live.signal(batch, LOGITS).logits)


def test_an_example_twice_in_a_batch_is_run_once_and_answered_twice(live: Counted):
    logits = RememberedTeacher(live).signal(batch_of(0, 0, 1), LOGITS).logits
    assert live.num_examples == 2
    assert logits is not None
    torch.testing.assert_close(logits[0], logits[1])


def test_the_teachers_dtype_is_kept():
    live = LiveTeacher(classifier().bfloat16(), TEXT, None)
    logits = RememberedTeacher(live).signal(batch_of(0, 1), LOGITS).logits
    assert logits is not None
    assert logits.dtype == torch.bfloat16


def test_a_row_does_not_keep_its_whole_batch_in_memory(live: Counted):
    remembered = RememberedTeacher(live)
    remembered.signal(batch_of(0, 1, 2), LOGITS)
    assert [row.untyped_storage().nbytes() for row in remembered._rows.values()] == [12, 12, 12]


def test_taps_come_from_the_live_teacher(live: Counted):
    needs = Needs(logits=True, taps=(TAP,))
    signal, expected = RememberedTeacher(live).signal(batch_of(0, 1), needs), live.signal(batch_of(0, 1), needs)
    torch.testing.assert_close(signal.hidden[TAP], expected.hidden[TAP])
    torch.testing.assert_close(signal.logits, expected.logits)


def test_a_language_model_is_refused():
    live = LiveTeacher(language_model(), TASKS["causal_lm"], None)
    with pytest.raises(UserError, match=r"teacher\.remember=false"):
        RememberedTeacher(live)


def test_a_resumed_run_remembers_what_the_checkpoint_does_and_asks_nothing_again(live: Counted):
    first = RememberedTeacher(live)
    rows = first.signal(batch_of(0, 1, 2), LOGITS).logits
    state = MemoryInCheckpoints(first).state_dict()
    second = RememberedTeacher(live)
    MemoryInCheckpoints(second).load_state_dict(state)
    found = second.signal(batch_of(0, 1, 2), LOGITS).logits
    assert live.num_examples == 3
    assert rows is not None
    assert found is not None
    assert torch.equal(found, rows)


def test_what_another_teacher_said_is_not_taken_over(live: Counted):
    first = RememberedTeacher(live)
    first.signal(batch_of(0, 1), LOGITS)
    second = RememberedTeacher(live)
    MemoryInCheckpoints(second, is_same=False).load_state_dict(MemoryInCheckpoints(first).state_dict())
    second.signal(batch_of(0, 1), LOGITS)
    assert live.num_examples == 4


def test_on_another_number_of_ranks_all_that_is_known_is_taken_over(live: Counted):
    states = []
    for text in (0, 1):
        each = RememberedTeacher(live)
        each.signal(batch_of(text), LOGITS)
        states.append(each.state_dict())
    alone = RememberedTeacher(live)
    MemoryInCheckpoints(alone).load_state_dict({"of_ranks": [*states, {}]})
    alone.signal(batch_of(0, 1), LOGITS)
    assert live.num_examples == 2


def test_embeddings_are_remembered_as_logits_are():
    task = TASKS["embedding"]
    live = Counted(tiny_model("bert", "embedding"), task, None)  # type: ignore[arg-type]
    remembered, needs = RememberedTeacher(live), Needs(embeddings=True)
    batch = embedding_batch(TEXTS, [0] * 3)
    first = remembered.signal(batch.take([0, 2]), needs).embeddings
    found = remembered.signal(batch, needs).embeddings
    assert first is not None
    assert found is not None
    assert live.num_examples == 3
    torch.testing.assert_close(found[[0, 2]], first)
    torch.testing.assert_close(found, LiveTeacher.signal(live, batch, needs).embeddings)
    other = RememberedTeacher(live)
    other.load_state_dict([remembered.state_dict()])
    torch.testing.assert_close(other.signal(batch, needs).embeddings, found)
    assert live.num_examples == 3
