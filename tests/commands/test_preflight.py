from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
import torch

from potstill.commands import preflight as command
from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source, make_module
from potstill.commands.preflight import Preflight, explained, out_of_memory, preflight
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.errors import StoppedError
from potstill.hardware.place import Place

ERROR = RuntimeError(
    "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.\nException raised from"
)


def parts(*overrides: str) -> tuple[TrainConfig, Any, Any]:
    config = typed(composed("train", ["hardware.precision=32", *overrides]), TrainConfig)
    objective = assemble_objective(config)
    source = assemble_source(config)
    module = make_module(config, source, assemble_models(config, source, objective), objective)
    return config, module, source.data


def found(*overrides: str, num_ranks: int = 1) -> Preflight:
    return preflight(*parts(*overrides), ranks(num_ranks))


def ranks(per_node: int, num_nodes: int = 1) -> Place:
    return Place(per_node, num_nodes, rank=0, is_rank=True)


@pytest.fixture
def texts(saved: Callable[..., str], tmp_path: Any) -> list[str]:
    """A student on texts of one to eleven words, and the one with a teacher, as overrides."""
    words = ["eel", *(f"word{row}" for row in range(60))]
    lines = ["text,label", *(f"word{row}{' eel' * (row % 11)},{'no' if row % 2 else 'yes'}" for row in range(60))]
    (tmp_path / "train.csv").write_text("\n".join(lines))
    chosen = ["data=files", f"data.source.train={tmp_path}/train.csv", "data.task=text_classification"]
    chosen += ["data.columns.text=text", "data.columns.label=label", "data.batch_size=32", "student=pretrained"]
    return [
        *chosen,
        f"student.path={saved(words=words)}",
        "teacher=pretrained",
        f"teacher.path={saved(words=words)}",
        "loss=kd",
    ]


def test_one_line_says_what_is_needed_and_what_is_free(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        before = found("student=vit_digits_tiny")
    shown = [record.getMessage() for record in caplog.records if "Memory" in record.getMessage()]
    assert shown == [before.estimate.line(before.free_bytes)]
    assert before.estimate.teacher == 0
    assert not any(record.levelno >= logging.WARNING for record in caplog.records)


def test_too_little_memory_is_a_warning_with_advice_and_no_refusal(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "available_bytes", lambda _: 1000)
    with caplog.at_level(logging.WARNING):
        before = found("student=vit_digits_tiny")
    (warning,) = [record.getMessage() for record in caplog.records]
    assert before.estimate.total > before.free_bytes
    assert "hardware.micro_batch_examples=" in warning
    assert "data.max_length" not in warning


@pytest.mark.parametrize(
    ("overrides", "num_ranks", "num_examples"),
    [
        (["data.batch_size=64"], 1, 64),
        (["data.batch_size=64"], 3, 22),
        (["data.batch_size=64", "hardware.micro_batch_examples=8"], 3, 8),
        (["data.batch_size=64", "hardware.micro_batch_tokens=8"], 1, 64),
    ],
)
def test_the_largest_micro_batch_of_images(overrides: list[str], num_ranks: int, num_examples: int) -> None:
    assert found("student=vit_digits_tiny", *overrides, num_ranks=num_ranks).settings.num_examples == num_examples


def test_a_batch_larger_than_the_data_is_the_data() -> None:
    config, module, data = parts("student=vit_digits_tiny", "data.batch_size=100000")
    assert preflight(config, module, data, ranks(1)).settings.num_examples == data.num_examples("train")


@pytest.mark.parametrize(
    ("overrides", "num_ranks", "num_examples"),
    [([], 1, 32), ([], 2, 16), (["hardware.micro_batch_tokens=44"], 1, 4), (["hardware.micro_batch_tokens=5"], 1, 1)],
)
def test_the_largest_micro_batch_of_texts_is_as_long_as_the_longest(
    texts: list[str], overrides: list[str], num_ranks: int, num_examples: float
) -> None:
    settings = found(*texts, *overrides, num_ranks=num_ranks).settings
    assert (settings.longest, settings.num_examples) == (11, num_examples)


def test_smaller_pieces_need_less_and_only_of_activations(texts: list[str]) -> None:
    whole, pieces = found(*texts).estimate, found(*texts, "hardware.micro_batch_examples=4").estimate
    assert pieces.activations < whole.activations / 4
    assert (pieces.parameters, pieces.teacher) == (whole.parameters, whole.teacher)
    assert whole.teacher == whole.parameters > 0


@pytest.mark.parametrize("remember", [True, False])
def test_the_teacher_is_found_where_it_is_remembered_too(texts: list[str], remember: bool) -> None:
    assert found(*texts, f"teacher.remember={remember}").estimate.teacher > 0


def test_fsdp_divides_the_student_and_if_asked_the_teacher(texts: list[str]) -> None:
    alone = found(*texts).estimate
    sharded = found(*texts, "hardware.strategy=fsdp", num_ranks=8).estimate
    assert sharded.optimizer == -(-alone.optimizer // 8)
    assert sharded.teacher == alone.teacher
    both = found(*texts, "hardware.strategy=fsdp", "hardware.shard_teacher=true", num_ranks=8).estimate
    assert both.teacher != alone.teacher


def test_ranks_of_one_machine_share_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "available_bytes", lambda _: 8 * 10**9)
    config, module, data = parts("student=vit_digits_tiny")
    free = [preflight(config, module, data, place).free_bytes for place in (ranks(1), ranks(4), ranks(2, num_nodes=2))]
    held = free[0] - 8 * 10**9
    assert 0 < held < 10**7
    assert [value - held for value in free] == [8 * 10**9, 2 * 10**9, 4 * 10**9]


def test_a_preflight_moves_no_random_number_and_no_weight(texts: list[str]) -> None:
    config, module, data = parts(*texts)
    before, random = {name: value.clone() for name, value in module.state_dict().items()}, torch.get_rng_state()
    preflight(config, module, data, ranks(1))
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true", "16-mixed"])
def test_every_precision_can_be_estimated(texts: list[str], precision: str) -> None:
    whole, narrow = found(*texts).estimate, found(*texts, f"hardware.precision={precision}").estimate
    assert narrow.activations < whole.activations
    assert (narrow.gradients < whole.gradients) == (precision == "bf16-true")


def test_the_message_says_what_was_tried_what_it_took_and_what_to_change() -> None:
    before = found("student=vit_digits_tiny")
    stopped = out_of_memory(ERROR, before)
    assert isinstance(stopped, StoppedError)
    first, second, *rest = str(stopped).splitlines()
    assert first == "Out of memory: DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."
    assert second == before.estimate.line(before.free_bytes)
    assert any("hardware.micro_batch_examples=" in line for line in rest)
    assert "kept" in rest[-1]


def test_an_error_without_a_text_is_called_by_its_kind() -> None:
    before = found("student=vit_digits_tiny")
    assert str(out_of_memory(MemoryError(), before)).splitlines()[0] == "Out of memory: MemoryError"


def test_a_run_that_lacks_memory_is_stopped_and_any_other_error_passes() -> None:
    before = found("student=vit_digits_tiny")
    with pytest.raises(StoppedError, match="DefaultCPUAllocator"), explained(before):
        torch.empty(1 << 60)
    with pytest.raises(RuntimeError, match="same dtype"), explained(before):
        raise RuntimeError("must have the same dtype")
