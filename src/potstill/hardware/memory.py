"""Memory: what a run will need on each device, what is free there, and whether an error says that it was not enough."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import astuple, dataclass
from itertools import chain, zip_longest
from pathlib import Path

import psutil
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_PROBE_WIDTHS = (8, 16)
_OUT_OF_MEMORY = (  # what comes as a mere RuntimeError
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # Windows
    "std::bad_alloc",  # LAPACK's workspaces
    "CUDA error: out of memory",  # of the driver, not of torch's allocator
    "CUBLAS_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
)


@dataclass(frozen=True)
class Estimate:
    """Bytes a device needs at the busiest moment of a step.

    parameters: of student and projectors, buffers included. gradients: of those that train. optimizer: its state.
    teacher: its parameters and buffers. activations: what the largest micro-batch keeps for its backward pass, and the
        gradients at the largest tensor of it.

    Not counted: other temporary tensors (workspaces of attention and matrix products, the several copies of logits that
    a loss over a large vocabulary takes, an optimizer's step over all parameters at once), the teacher's activations
    (one layer's live at a time), communication buffers, fragmentation of the allocator, the context of the accelerator
    (hundreds of MB), a remembered teacher's logits, and data loader workers.
    """

    parameters: int
    gradients: int
    optimizer: int
    teacher: int
    activations: int

    @property
    def total(self) -> int:
        return sum(astuple(self))

    def sharded(
        self, num_shards: int, *, block_bytes: int, teacher_block_bytes: int | None = None, cpu_offload: bool = False
    ) -> Estimate:
        """The estimate of one rank where parameters, gradients and optimizer state are divided among `num_shards`.

        block_bytes: of the parameters that are whole at one moment (see `gathered_bytes`), and so are their gradients.
        teacher_block_bytes: the same of a teacher that is sharded too; None: each rank has it whole.
        cpu_offload: the student's shards lie in CPU memory, and the device holds what is whole only.
        """

        kept = 0.0 if cpu_offload else 1 / num_shards
        teacher = self.teacher
        if teacher_block_bytes is not None:
            teacher = teacher_block_bytes + math.ceil(self.teacher / num_shards)
        return Estimate(
            parameters=block_bytes + math.ceil(self.parameters * kept),
            gradients=block_bytes + math.ceil(self.gradients * kept),
            optimizer=math.ceil(self.optimizer * kept),
            teacher=teacher,
            activations=self.activations,
        )

    def line(self, free_bytes: int) -> str:
        """The one line a run shows."""
        parts = {
            "student": self.parameters,
            "gradients": self.gradients,
            "optimizer": self.optimizer,
            "teacher": self.teacher,
            "activations": self.activations,
        }
        named = ", ".join(f"{name} {readable(value)}" for name, value in parts.items() if value)
        return f"Memory per device (estimate): {named} = {readable(self.total)} of {readable(free_bytes)} free"


def estimate(
    student: nn.Module,
    objective: nn.Module,
    *,
    teacher_bytes: int,
    make_optimizer: Callable[[list[dict]], Optimizer],
    loss_of: Callable[[int], object],
    num_examples: float,
    sizes: tuple[int, int] = (2, 4),
) -> Estimate:
    """What one unsharded device needs. Optimizer and activations are measured, not tabulated.

    make_optimizer: from parameter groups; tried on a small parameter.
    loss_of: runs the loss of so many examples, each as long as the longest, on student and objective.
    num_examples: of the largest micro-batch; a fraction where its limit is in tokens.
    sizes: the numbers of examples that are measured; from two follows what grows with them and what does not (copies of
        weights under autocast). Terms that compare all pairs of a batch grow faster than is assumed.

    Under activation checkpointing as `transformers` does it, what the average block keeps while it is run again is
    counted too. Other ways of checkpointing are seen only in what they keep.
    Leaves parameters, buffers and random numbers as they were.
    """
    model = nn.ModuleList([student, objective])
    with _on_loan(model):
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return Estimate(
            parameters=bytes_of(chain(model.parameters(), model.buffers())),
            gradients=bytes_of(trainable),
            optimizer=_state_bytes(make_optimizer, trainable),
            teacher=teacher_bytes,
            activations=_activation_bytes(model, loss_of, num_examples, sizes),
        )


def bytes_of(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def gathered_bytes(model: nn.Module, blocks: Sequence[nn.Module]) -> int:
    """Bytes of parameters that are whole at one moment of a sharded step: the largest block, and all outside of blocks.

    FSDP2 gathers the blocks one at a time, and keeps the root's own parameters (embeddings, head) from forward to
    backward. Without blocks, that is the whole model.
    """
    inside = {parameter for block in blocks for parameter in block.parameters()}
    outside = bytes_of(parameter for parameter in model.parameters() if parameter not in inside)
    return outside + max((bytes_of(block.parameters()) for block in blocks), default=0)


def saved_bytes(run: Callable[[], object], model: nn.Module) -> list[int]:
    """Bytes of each storage that one run keeps for its backward pass, beside `model`'s own tensors; in its order."""
    own = {tensor.untyped_storage().data_ptr() for tensor in chain(model.parameters(), model.buffers())}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage  # held: a freed one would leave its address to the next
        return tensor.detach()  # with its graph, an operation that saves its output would hold itself, for good

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return [storage.nbytes() for address, storage in storages.items() if address not in own]


def available_bytes(device: torch.device) -> int:
    """What is free on `device`. CPU: of the machine, or of the control group of this process where that is less."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min([psutil.virtual_memory().available, *_cgroup_bytes()])


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of an accelerator or of the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _OUT_OF_MEMORY)


def readable(num_bytes: float) -> str:
    """With the unit that leaves one to three digits before the point."""
    for unit in ("B", "kB", "MB"):
        if num_bytes < 999.95:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:,.1f} GB"


@contextmanager
def _on_loan(model: nn.Module) -> Iterator[None]:
    """`model` may run inside, without being compiled; afterwards buffers and random numbers are what they were."""
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices), torch.compiler.set_stance("force_eager"), ExitStack() as restore:
        for buffer in model.buffers():  # batch normalisation counts every run in its own
            restore.callback(setattr, buffer, "data", buffer.data)
            buffer.data = buffer.data.clone()
        yield


def _state_bytes(make_optimizer: Callable[[list[dict]], Optimizer], parameters: Sequence[Tensor]) -> int:
    """So much an element, and so much a tensor (AdamW counts its steps in one), found by probes of two sizes."""
    total = 0.0
    for dtype in {parameter.dtype for parameter in parameters}:
        small, large = (_probe(make_optimizer, width, dtype) for width in _PROBE_WIDTHS)
        narrow, wide = _PROBE_WIDTHS
        per_element = (large - small) / (wide**2 - narrow**2)
        per_tensor = small - per_element * narrow**2
        total += sum(per_element * each.numel() + per_tensor for each in parameters if each.dtype == dtype)
    return round(total)


def _probe(make_optimizer: Callable[[list[dict]], Optimizer], width: int, dtype: torch.dtype) -> int:
    """Bytes of state that one step leaves for one square matrix."""
    parameter = nn.Parameter(torch.ones(width, width, dtype=dtype))
    parameter.grad = torch.ones_like(parameter)
    optimizer = make_optimizer([{"params": [parameter], "weight_decay": 0.0}])
    optimizer.step()
    return bytes_of(value for value in optimizer.state[parameter].values() if isinstance(value, Tensor))


def _activation_bytes(
    model: nn.Module, loss_of: Callable[[int], object], num_examples: float, sizes: tuple[int, int]
) -> int:
    """What is saved, and the gradients at the largest of it: of an operation's output and of its input."""

    def measured() -> tuple[float, float]:
        few, many = (saved_bytes(functools.partial(loss_of, size), model) for size in sizes)
        steps = (num_examples - sizes[0]) / (sizes[1] - sizes[0])
        grown = [first + (second - first) * steps for first, second in zip_longest(few, many, fillvalue=0)]
        return sum(grown), max(grown, default=0)

    saved, largest = measured()
    blocks = _checkpointed(model)
    if blocks:
        with ExitStack() as restore:
            for block in blocks:
                restore.callback(setattr, block, "gradient_checkpointing", True)
                setattr(block, "gradient_checkpointing", False)  # noqa: B010  nn.Module's types know no flags
            whole, largest = measured()
        saved += (whole - saved) / len(blocks)
    return round(saved + 2 * largest)


def _checkpointed(model: nn.Module) -> list[nn.Module]:
    """The innermost modules that `transformers` has told to keep their input only: not the stacks that hold them."""

    def told(module: nn.Module) -> bool:
        return getattr(module, "gradient_checkpointing", False) is True

    return [each for each in model.modules() if told(each) and not any(map(told, list(each.modules())[1:]))]


def _cgroup_bytes(root: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")) -> Iterator[int]:
    """What each control group of this process, and each one above it, leaves; nothing where there is no limit.

    Lines of `membership` are `number:controllers:path`, without controllers in version 2. Inside a container the path
    may be that of the host, which is not there: the groups above it are.
    """
    for line in membership.read_text().splitlines() if membership.exists() else []:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            base, limit, usage, cache = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            cache = "total_inactive_file"
        else:
            continue
        folder = base / path.lstrip("/")
        for group in (folder, *folder.parents):
            if group.is_relative_to(base) and (group / limit).exists():
                with suppress(PermissionError):  # what is not to be read is not to be known
                    yield from _left(group, limit, usage, cache)


def _left(group: Path, limit: str, usage: str, cache: str) -> Iterator[int]:
    """The limit less what is used, of which cached files give way."""
    allowed = (group / limit).read_text().strip()
    if allowed == "max":
        return
    statistics = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    used = int((group / usage).read_text()) - int(statistics.get(cache, 0))
    yield max(0, int(allowed) - used)
