"""A teacher on disk: the same answers, bit for bit, and never those of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from potstill.data.batch import Batch
from potstill.errors import StoppedError, UserError
from potstill.losses.fused import Options
from potstill.models.task import TASKS
from potstill.signals.cached import CachedTeacher, caches_within
from potstill.signals.codecs import Sampled, TopK
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs, SignalSource
from potstill.signals.remembered import RememberedTeacher
from potstill.signals.several import Member, SeveralTeachers
from potstill.tracking.memory import SignalsOnDisk
from tests.integration.distil import TAPS, batch, distillation, fit, model, objective, one_step, relative_difference
from tests.models.tiny import tiny_model
from tests.tiers import one_and_others

from .keeping import Counted, counted, kept

TASKS_AND_TERMS = {
    "text_classification": "kd",
    "causal_lm": "kd",
    "embedding": "embedding_mse",
    "image_classification": "kd",
}
LOGITS = Needs(logits=True)


def examples(task: str, *numbers: int) -> Batch:
    return batch(task).take(numbers or range(16))


def answer(teacher: SignalSource, asked: Batch, needs: Needs) -> dict[str, Any]:
    signal = teacher.signal(asked, needs)
    parts = {"logits": signal.logits, "embeddings": signal.embeddings, **signal.hidden}
    return {name: value for name, value in parts.items() if value is not None}


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    assert expected
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("taps", [False, True])
@pytest.mark.parametrize("task", TASKS_AND_TERMS)
def test_answers_from_disk_are_those_of_the_live_teacher(task: str, taps: bool, tmp_path: Path) -> None:
    live = counted(model(task), task)
    output = live.task.output
    needs = Needs(output.logits, (TAPS[task],) if taps else (), output.embeddings)
    expected = answer(live, examples(task), needs)
    writer = kept(live, tmp_path, needs)
    assert_same(answer(writer, examples(task), needs), expected)
    writer.flush()
    live.num_examples = 0
    reader = kept(live, tmp_path, needs, write=False)
    assert_same(answer(reader, examples(task), needs), expected)
    assert live.num_examples == 0


@pytest.mark.parametrize("architecture", one_and_others("gemma2", "llama", "qwen2", "gpt2"))
def test_whatever_a_model_does_to_its_logits_is_done_to_what_was_kept(architecture: str, tmp_path: Path) -> None:
    live = counted(tiny_model(architecture, "causal_lm"), "causal_lm")  # gemma2: with a soft-cap
    expected = answer(live, examples("causal_lm"), LOGITS)
    assert_same(answer(kept(live, tmp_path, LOGITS), examples("causal_lm"), LOGITS), expected)


def test_rows_before_the_head_are_those_of_the_live_teacher(tmp_path: Path) -> None:
    live = counted(model("causal_lm"), "causal_lm")
    teacher = kept(live, tmp_path, LOGITS)
    expected = live.signal(examples("causal_lm"), Needs(head=True)).head
    live.num_examples = 0
    for _ in range(2):
        signal = teacher.signal(examples("causal_lm"), Needs(head=True))
        assert signal.logits is None
        assert signal.head is not None
        assert expected is not None
        assert torch.equal(signal.head.hidden, expected.hidden)
        assert torch.equal(signal.head.logits(), expected.logits())
    assert live.num_examples == 16


FORMS = {"states": None, "top_k": TopK(4), "top_p": TopK(8, top_p=0.5), "sampled": Sampled(5)}


@pytest.mark.parametrize("form", FORMS)
def test_of_what_was_kept_a_step_without_logits_is_the_step_with_all(form: str, tmp_path: Path) -> None:
    teacher = kept(counted(model("causal_lm"), "causal_lm"), tmp_path, LOGITS, FORMS[form])
    own = {"topk_mode": "raw" if form == "sampled" else "tail", "temperature": 1.0 if form == "sampled" else 2.0}
    given: dict[str, Any] = {"teacher": teacher, "term_options": own, "max_examples": 5}
    module = distillation("causal_lm", "kd", **given, fusing=Options(chunk_bytes=2**12))
    step = module.step_of(batch("causal_lm"))
    assert step.student_logits is step.teacher_logits is None
    assert (step.teacher_sparse is None) == (form == "states")
    found, metrics = one_step(module, batch("causal_lm"))
    expected, expected_metrics = one_step(distillation("causal_lm", "kd", **given, fusing=None), batch("causal_lm"))
    assert relative_difference(found, expected) <= 1e-5
    assert metrics == pytest.approx(expected_metrics, rel=1e-5, abs=1e-6)
    assert ("train/teacher_mass" in metrics) == (form in ("top_k", "top_p"))


def test_several_teachers_are_not_asked_for_their_heads(tmp_path: Path) -> None:
    wholly = kept(counted(model("causal_lm"), "causal_lm"), tmp_path, LOGITS)
    several = SeveralTeachers({"a": Member(wholly, 1.0)}, "losses", TASKS["causal_lm"])
    assert not distillation("causal_lm", "kd", teacher=several).fuses


def test_classes_of_a_teacher_whose_head_nobody_can_tell_are_kept_and_used(tmp_path: Path) -> None:
    """Also of an empty batch, of which the live teacher is asked."""

    class Adapted(torch.nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + input.sum(dim=-1, keepdim=True)

    adapted = model("causal_lm")
    head: Any = adapted.get_output_embeddings()
    adapted.set_output_embeddings(Adapted(head.in_features, head.out_features, bias=False))
    teacher = kept(counted(adapted, "causal_lm"), tmp_path, LOGITS, TopK(4))
    module = distillation("causal_lm", "kd", teacher=teacher, fusing=Options())
    assert module.fuses
    for asked in (batch("causal_lm"), batch("causal_lm").empty()):
        step = module.step_of(asked)
        assert step.teacher_sparse is not None
        assert len(step.teacher_sparse.ids) == len(step.labels)


@pytest.mark.parametrize("padding", [{"left": 3}, {"right": 2}], ids=str)
def test_padding_is_not_kept(padding: dict[str, int], tmp_path: Path) -> None:
    live = counted(model("causal_lm"), "causal_lm")
    teacher = kept(live, tmp_path, LOGITS)
    plain = answer(teacher, examples("causal_lm"), LOGITS)
    assert_same(answer(teacher, batch("causal_lm", **padding), LOGITS), plain)
    assert live.num_examples == 16


def test_examples_in_another_order_and_company_get_their_own_answers(tmp_path: Path) -> None:
    live = counted(model("causal_lm"), "causal_lm")
    teacher = kept(live, tmp_path, LOGITS)
    teacher.signal(examples("causal_lm", 0, 1, 2, 3, 4, 5), LOGITS)
    teacher.flush()
    found = answer(teacher, examples("causal_lm", 5, 9, 1), LOGITS)
    assert live.num_examples == 7
    expected = answer(live, examples("causal_lm", 5, 9, 1), LOGITS)
    torch.testing.assert_close(found, expected)


def poisoned(live: Counted) -> None:
    """Whoever asks the model below its head fails."""
    live.signal = live.below_head = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    "task", one_and_others("causal_lm", "text_classification", "embedding", "image_classification")
)
def test_training_on_what_was_kept_ends_with_the_weights_of_a_live_training(task: str, tmp_path: Path) -> None:
    def trained(wrap: Callable[[Counted, Needs], SignalSource]) -> dict[str, torch.Tensor]:
        terms = objective(task, TASKS_AND_TERMS[task])
        source = wrap(counted(model(task), task), terms.needs_teacher)
        torch.manual_seed(0)
        module = distillation(task, TASKS_AND_TERMS[task], teacher=source, lr=0.1, max_examples=5)
        callbacks = [SignalsOnDisk(list(caches_within(source)))]
        fit(module, [batch(task)], epochs=3, callbacks=callbacks)  # type: ignore[arg-type]
        return module.student.state_dict()

    def on_the_way(live: Counted, needs: Needs) -> CachedTeacher:
        teacher = kept(live, tmp_path, needs)
        teacher.is_writing = False
        return teacher

    def from_disk(live: Counted, needs: Needs) -> CachedTeacher:
        poisoned(live)
        return kept(live, tmp_path, needs, write=False)

    expected = trained(lambda live, _: live)
    start = distillation(task, TASKS_AND_TERMS[task]).student.state_dict()
    assert any(not torch.equal(start[name], value) for name, value in expected.items()), "nothing was learned"
    for wrap in (on_the_way, from_disk):
        assert_same(trained(wrap), expected)


def test_shuffled_epochs_are_those_of_a_teacher_that_remembers(tmp_path: Path) -> None:
    orders = [range(16), range(15, -1, -1), [*range(0, 16, 2), *range(1, 16, 2)]]
    live = counted(model("text_classification"), "text_classification")
    on_disk, in_memory = kept(live, tmp_path, LOGITS), RememberedTeacher(live)
    for order in orders:
        for part in (list(order)[:7], list(order)[7:]):
            asked = examples("text_classification", *part)
            assert_same(answer(on_disk, asked, LOGITS), answer(in_memory, asked, LOGITS))
    assert live.num_examples == 32


def test_what_is_remembered_of_a_cache_is_read_once(tmp_path: Path) -> None:
    teacher = kept(counted(model("text_classification"), "text_classification"), tmp_path, LOGITS)
    remembered, asked = RememberedTeacher(teacher), examples("text_classification", 1, 2)
    first = answer(remembered, asked, LOGITS)
    teacher.cache.store.forget_pending()
    poisoned(teacher.live)  # type: ignore[arg-type]
    assert_same(answer(remembered, asked, LOGITS), first)
    assert [*caches_within(remembered)] == [teacher]


@pytest.mark.parametrize("codec", [TopK(6), TopK(20, top_p=0.5), TopK(6, values="uint8"), Sampled()], ids=repr)
def test_some_classes_are_answered_for_whole_batches_and_empty_ones(codec: Any, tmp_path: Path) -> None:
    live = counted(model("causal_lm"), "causal_lm")
    teacher = kept(live, tmp_path, LOGITS, codec)
    asked = examples("causal_lm")
    signal = teacher.signal(asked, LOGITS)
    assert signal.logits is None
    assert signal.sparse is not None
    assert len(signal.sparse.ids) == live.task.count_rows(asked)["scored"]
    dense = live.signal(asked, LOGITS).logits
    assert dense is not None
    known = signal.sparse.log_p > -torch.inf
    if not signal.sparse.is_sampled:
        expected = dense.log_softmax(dim=-1).gather(-1, signal.sparse.ids)
        torch.testing.assert_close(signal.sparse.log_p.float()[known], expected[known], rtol=1e-3, atol=0.15)
    nothing = teacher.signal(asked.empty(), LOGITS)
    assert nothing.logits is None
    assert nothing.sparse is not None
    assert len(nothing.sparse.ids) == 0


def test_samples_before_training_are_not_kept(tmp_path: Path) -> None:
    live = counted(model("text_classification"), "text_classification")
    teacher = kept(live, tmp_path, LOGITS)
    teacher.is_writing = False
    teacher.signal(examples("text_classification", 1), LOGITS)
    assert len(teacher.cache.store) == 0
    SignalsOnDisk([teacher]).on_train_start(None, None)  # type: ignore[arg-type]
    teacher.signal(examples("text_classification", 1), LOGITS)
    assert len(teacher.cache.store) == 1


def test_a_checkpoint_comes_after_what_the_teacher_said_before_it(tmp_path: Path) -> None:
    live = counted(model("text_classification"), "text_classification")
    teacher = kept(live, tmp_path, LOGITS)
    teacher.signal(examples("text_classification"), LOGITS)
    SignalsOnDisk([teacher]).state_dict()
    assert len(kept(live, tmp_path, LOGITS).cache.store) == 16


def test_a_full_disk_ends_the_keeping_and_not_the_training(tmp_path: Path, monkeypatch, caplog) -> None:
    live = counted(model("text_classification"), "text_classification")
    expected = answer(live, examples("text_classification"), LOGITS)

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("potstill.signals.store.write_shard", refuse)
    for must_write in (False, True):
        teacher = kept(live, tmp_path, LOGITS)
        teacher.begin_writing(must_write=must_write)
        assert_same(answer(teacher, examples("text_classification"), LOGITS), expected)
        if must_write:
            with pytest.raises(StoppedError, match="No space left"):
                teacher.flush()
        else:
            teacher.flush()
            assert "No space left" in caplog.text
        assert_same(answer(teacher, examples("text_classification"), LOGITS), expected)
        assert len(teacher.cache.store) == 0


def test_answers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    broken: PreTrainedModel = model("text_classification")
    torch.nn.init.constant_(broken.classifier.bias, torch.nan)  # type: ignore[union-attr]
    teacher = kept(LiveTeacher(broken, counted(broken, "text_classification").task, None), tmp_path, LOGITS)
    with pytest.raises(UserError, match="NaN or infinite"):
        teacher.signal(examples("text_classification"), LOGITS)
