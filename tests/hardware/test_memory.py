from __future__ import annotations

import functools
import subprocess
import sys
import weakref
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from potstill.data.batch import Batch
from potstill.hardware import memory
from potstill.hardware.memory import Estimate, bytes_of, estimate, gathered_bytes, is_out_of_memory, saved_bytes
from potstill.hardware.sharding import blocks
from tests.integration.distil import distillation
from tests.models.tiny import image_batch, text_batch, tiny_model

OPTIMIZERS = {
    "adamw": torch.optim.AdamW,
    "sgd": functools.partial(torch.optim.SGD, lr=0.1),
    "momentum": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
    "amsgrad": functools.partial(torch.optim.AdamW, amsgrad=True),
}
FULL = 48  # examples of the micro-batch that is estimated from the sample
GB = 10**9


def module(kind: str, **options: Any) -> Any:
    if kind == "resnet":
        student = tiny_model("resnet", "image_classification").train()
        return distillation("image_classification", "ce", "kd", student=student, **options)
    return distillation("text_classification", "ce", "kd", "hidden_mse", **options)


def batch(kind: str, num_examples: int) -> Batch:
    if kind == "resnet":
        return image_batch(num_examples)
    texts = [[5 + (3 * row + column) % 40 for column in range(24)] for row in range(num_examples)]
    return text_batch(texts, [row % 2 for row in range(num_examples)])


def loss_of(module: Any, kind: str, num_examples: int) -> torch.Tensor:
    piece = batch(kind, num_examples)
    return module.objective(module.step_of(piece), module.task.count_rows(piece))[0]


def estimated(module: Any, kind: str, num_examples: float = FULL, **options: Any) -> Estimate:
    return estimate(
        module.student,
        module.objective,
        teacher_bytes=0,
        make_optimizer=module.make_optimizer,
        loss_of=functools.partial(loss_of, module, kind),
        num_examples=num_examples,
        **options,
    )


def trained(module: Any) -> nn.ModuleList:
    return nn.ModuleList([module.student, module.objective])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ["bert", "resnet"])
def test_weights_gradients_and_state_are_counted_to_the_byte(kind: str, optimizer: str) -> None:
    distilled = module(kind, make_optimizer=OPTIMIZERS[optimizer])
    next(distilled.student.parameters()).requires_grad_(False)
    found = estimated(distilled, kind)

    real = distilled.configure_optimizers()["optimizer"]
    loss_of(distilled, kind, 4).backward()
    real.step()
    parameters = list(distilled.parameters())
    assert found.parameters == bytes_of(chain(parameters, trained(distilled).buffers()))
    assert found.gradients == bytes_of(each.grad for each in parameters if each.grad is not None)
    assert found.optimizer == bytes_of(
        value for state in real.state.values() for value in state.values() if value is not None
    )


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", ["bert", "resnet"])
def test_what_a_few_examples_keep_tells_what_many_keep(kind: str, precision: torch.dtype) -> None:
    """Under autocast too, whose copies of the weights do not grow with the batch."""
    distilled = module(kind)
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        found = estimated(distilled, kind).activations
        real = saved_bytes(lambda: loss_of(distilled, kind, FULL), trained(distilled))
    assert found == pytest.approx(sum(real) + 2 * max(real), rel=0.02)


def test_activations_grow_by_the_same_with_every_example() -> None:
    distilled = module("bert")
    of_8, of_16, of_24 = (estimated(distilled, "bert", size).activations for size in (8, 16, 24))
    assert 0 < of_16 - of_8 == pytest.approx(of_24 - of_16, abs=1)


def test_an_estimate_changes_nothing() -> None:
    distilled = module("resnet")
    checkpointed = module("bert")
    checkpointed.student.activation_checkpointing_enable()
    for each, kind in ((distilled, "resnet"), (checkpointed, "bert")):
        before = {name: value.clone() for name, value in each.state_dict().items()}
        random = torch.get_rng_state()
        estimated(each, kind)
        after = each.state_dict()
        assert all(
            after[name].dtype == value.dtype and torch.equal(after[name], value) for name, value in before.items()
        )
        assert torch.equal(torch.get_rng_state(), random)
        assert all(parameter.grad is None for parameter in each.parameters())
    assert checkpointed.student.is_activation_checkpointing


def test_nothing_that_was_run_for_an_estimate_stays_in_memory() -> None:
    """An operation that saves its own output, kept as it is, makes a cycle that no collector sees."""
    layer = nn.Linear(4, 4)
    outputs: list[weakref.ref[torch.Tensor]] = []

    def run() -> torch.Tensor:
        output = layer(torch.ones(2, 4)).tanh()
        outputs.append(weakref.ref(output))
        return output.sum()

    assert saved_bytes(run, layer)
    assert outputs[0]() is None


def test_a_student_of_half_the_width_needs_half_and_its_projectors_do_not() -> None:
    distilled = module("bert", make_optimizer=OPTIMIZERS["momentum"])
    whole = estimated(distilled, "bert")
    distilled.student.to(torch.bfloat16)
    half = estimated(distilled, "bert")
    weights, kept = (bytes_of(part.parameters()) for part in (distilled.student, distilled.objective))
    assert (whole.gradients, half.gradients) == (2 * weights + kept, weights + kept)
    assert (whole.optimizer, half.optimizer) == (2 * weights + kept, weights + kept)
    assert half.activations < 0.7 * whole.activations


def test_checkpointing_keeps_inputs_and_one_block_that_is_run_again() -> None:
    distilled = module("bert")
    whole = saved_bytes(lambda: loss_of(distilled, "bert", FULL), trained(distilled))
    distilled.student.activation_checkpointing_enable()
    found = estimated(distilled, "bert").activations
    inputs, num_blocks = sum(saved_bytes(lambda: loss_of(distilled, "bert", FULL), trained(distilled))), 2
    assert inputs < sum(whole) / 2
    assert found == pytest.approx(inputs + (sum(whole) - inputs) / num_blocks + 2 * max(whole), rel=0.02)


def test_a_shared_storage_counts_once_and_a_weight_never() -> None:
    layer = nn.Linear(10, 10, bias=False)
    inputs = torch.ones(100, 10, requires_grad=True)
    assert saved_bytes(lambda: layer(inputs), layer) == [inputs.nbytes]
    views = lambda: [layer(inputs[:50]), layer(inputs[50:]), inputs[3] * inputs[4]]  # noqa: E731
    assert saved_bytes(views, layer) == [inputs.nbytes]


def test_shards_divide_what_is_sharded_and_leave_a_block_whole() -> None:
    whole = Estimate(parameters=1000, gradients=800, optimizer=1600, teacher=400, activations=70)
    assert whole.sharded(4, block_bytes=100) == Estimate(350, 300, 400, 400, 70)
    assert whole.sharded(4, block_bytes=100, teacher_block_bytes=50).teacher == 150
    assert whole.sharded(4, block_bytes=100, teacher_block_bytes=50, cpu_offload=True) == Estimate(100, 100, 0, 150, 70)


def test_the_largest_block_and_what_is_in_no_block_are_whole_at_once() -> None:
    model = tiny_model("bert", "text_classification", num_hidden_layers=3)
    layers = [block for block in blocks(model) if block in list(model.bert.encoder.layer)]  # type: ignore[union-attr]
    layer_bytes = bytes_of(layers[0].parameters())
    outside = bytes_of(model.parameters()) - 3 * layer_bytes
    assert len(layers) == 3
    assert gathered_bytes(model, layers) == outside + layer_bytes
    assert gathered_bytes(model, []) == bytes_of(model.parameters())


def write(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in files.items():
        (folder / name.replace("__", ".")).write_text(f"{value}\n")


def left(tmp_path: Path, membership: str) -> list[int]:
    (tmp_path / "membership").write_text(membership)
    return sorted(memory._cgroup_bytes(tmp_path / "cgroup", tmp_path / "membership"))


def test_a_limit_of_any_group_above_holds_and_cached_files_give_way(tmp_path: Path) -> None:
    inner = tmp_path / "cgroup" / "user" / "job"
    write(inner, memory__max="max", memory__current=5 * GB, memory__stat="anon 1\ninactive_file 7")
    write(inner.parent, memory__max=8 * GB, memory__current=5 * GB, memory__stat=f"anon 1\ninactive_file {2 * GB}")
    assert left(tmp_path, "0::/user/job\n") == [5 * GB]


def test_a_container_of_version_1_does_not_see_the_path_of_its_host(tmp_path: Path) -> None:
    base = tmp_path / "cgroup" / "memory"
    statistics = f"cache 1\ninactive_file 3\ntotal_inactive_file {GB}"
    files = {"memory__limit_in_bytes": 4 * GB, "memory__usage_in_bytes": 6 * GB, "memory__stat": statistics}
    write(base, **files)
    assert left(tmp_path, "7:cpu,cpuacct:/docker/1\n5:memory:/docker/1\n0::/\n") == [0]
    write(base / "docker" / "1", **{**files, "memory__limit_in_bytes": 9 * GB})
    assert left(tmp_path, "5:memory:/docker/1\n") == [0, 4 * GB]


def test_without_control_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert left(tmp_path, "0::/\n") == []
    assert list(memory._cgroup_bytes(tmp_path / "cgroup", tmp_path / "nothing")) == []


def test_what_is_free_is_the_least_that_any_limit_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(memory, "_cgroup_bytes", lambda: iter([10**18]))
    assert GB / 100 < memory.available_bytes(cpu) < 10**15
    monkeypatch.setattr(memory, "_cgroup_bytes", lambda: iter([10**18, 12345]))
    assert memory.available_bytes(cpu) == 12345


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:81] data. DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("CUDA error: out of memory"),
    ],
)
def test_errors_of_lacking_memory_are_told(error: BaseException) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes do not match"), ValueError("out of memory"), KeyboardInterrupt()]
)
def test_other_errors_are_not_taken_for_lack_of_memory(error: BaseException) -> None:
    assert not is_out_of_memory(error)


STARVE = """
import resource, torch
from potstill.hardware.memory import is_out_of_memory
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
layer = torch.nn.Linear(64, 1 << 16)
try:
    layer(torch.ones(1 << 17, 64)).sum().backward()
except BaseException as error:
    print(is_out_of_memory(error), type(error).__name__)
"""


def test_an_allocator_that_really_fails_is_recognised() -> None:
    done = subprocess.run([sys.executable, "-c", STARVE], capture_output=True, text=True, timeout=120)
    assert done.stdout == "True RuntimeError\n", done.stderr


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (999_960, "1.0 MB"),
        (23_100_000_000, "23.1 GB"),
        (5e12, "5,000.0 GB"),
    ],
)
def test_sizes_read_well(num_bytes: float, text: str) -> None:
    assert memory.readable(num_bytes) == text


def test_the_line_names_each_part_and_what_is_free() -> None:
    shown = Estimate(200_000_000, 200_000_000, 400_000_000, 0, 1_100_000_000).line(23_100_000_000)
    assert shown == (
        "Memory per device (estimate): student 200.0 MB, gradients 200.0 MB, optimizer 400.0 MB, "
        "activations 1.1 GB = 1.9 GB of 23.1 GB free"
    )
