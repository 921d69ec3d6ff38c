"""Peak memory of each rank: one process, replicas (DDP), and shards (FSDP2), of the same training.

    python benchmarks/sharded_memory.py --out benchmarks/results/sharded_memory.json

A BERT student of about 50 million parameters follows a BERT teacher of about 100 million, both with random weights, on
texts of 128 tokens, with AdamW. Every variant runs in fresh processes, each of which goes the way of `potstill train`.
The kernel notes the largest resident memory of a process (VmHWM); the note is wiped when the first step begins, so that
the peak of loading, where every rank still holds whole models, is told apart from the peak of training. A figure counts
only if all variants went through the same losses.

All is measured twice. By default, glibc keeps freed tensors of up to 32 MB in a heap full of holes; told to map each on
its own, it gives them back to the system, and what is resident is what is in use.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import random
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from potstill.commands.assemble import assemble_models, assemble_objective, assemble_source, make_module
from potstill.commands.check import check_parts
from potstill.commands.fit import fit, make_trainer
from potstill.commands.preflight import preflight
from potstill.config.compose import composed, typed
from potstill.config.schema import TrainConfig
from potstill.hardware.launch import as_rank, launch
from potstill.hardware.memory import Estimate
from potstill.tracking.manifest import git_state, write_json

CHECKPOINTING = "hardware.activation_checkpointing=true"
DDP = ["hardware=cpu", "hardware.devices=2", "hardware.strategy=ddp"]
FSDP = ["hardware=cpu_fsdp2"]
FSDP_BOTH = [*FSDP, "hardware.shard_teacher=true"]
VARIANTS: dict[str, tuple[int, list[str]]] = {  # ranks, overrides
    "1 process": (1, ["hardware=cpu"]),
    "2 DDP ranks": (2, DDP),
    "2 FSDP2 ranks, teacher whole": (2, FSDP),
    "2 FSDP2 ranks, teacher sharded": (2, FSDP_BOTH),
    "1 process, checkpointing": (1, ["hardware=cpu", CHECKPOINTING]),
    "2 FSDP2 ranks, teacher sharded, checkpointing": (2, [*FSDP_BOTH, CHECKPOINTING]),
}
ALLOCATORS = {"mapped": {"MALLOC_MMAP_THRESHOLD_": str(2**20)}, "default": {}}
NUM_STEPS = 4  # the loss of the fourth is that after three
LOSS_TOLERANCE = 1e-4  # relative; summation order differs
CLEAR_PEAK = "5"  # proc(5), clear_refs: start VmHWM anew


@dataclass(frozen=True)
class Sizes:
    """Of models and batches. examples: of one step, over all ranks; micro_batch: of one rank's pass."""

    vocabulary: int = 30_522
    student_width: int = 512
    student_layers: int = 11
    teacher_width: int = 768
    teacher_layers: int = 12
    length: int = 128
    examples: int = 8
    micro_batch: int = 2


@dataclass(frozen=True)
class Memory:
    """Of one rank, in bytes. imports: resident before anything is made. start: resident when the first step begins."""

    imports: int
    loading_peak: int
    start: int
    training_peak: int


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS), metavar="VARIANT")
    options = parser.parse_args(arguments)
    sizes = Sizes()
    with tempfile.TemporaryDirectory(prefix="potstill-memory-") as folder:
        write_texts(Path(folder), sizes)
        variants = [measure(name, kind, sizes, Path(folder)) for kind in ALLOCATORS for name in options.only]
    report = {
        "code": git_state(Path(__file__).parent),
        "machine": {"platform": platform.platform(), "cores": os.cpu_count(), "torch": torch.__version__},
        "sizes": asdict(sizes),
        "losses_agree": losses_agree(variants),
        "variants": variants,
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, report)
    for kind in ALLOCATORS:
        chosen = [variant for variant in variants if variant["allocator"] == kind]
        print(f"\nAllocator: {kind}\n", *markdown(chosen), sep="\n")
    if not report["losses_agree"]:
        sys.exit("These figures do not count: the variants did not go through the same losses.")


def measure(name: str, allocator: str, sizes: Sizes, folder: Path) -> dict[str, Any]:
    """One variant in processes of its own: what every rank held, the estimate, and the losses."""
    num_ranks, overrides = VARIANTS[name]
    print(f"{name}, allocator: {allocator} ...", file=sys.stderr)
    with tempfile.TemporaryDirectory(dir=folder) as output, set_environment(ALLOCATORS[allocator]):
        launch(num_ranks, [sys.executable, __file__, "rank", output, *training(sizes, folder), *overrides])
        ranks = [json.loads((Path(output) / f"{rank}.json").read_text()) for rank in range(num_ranks)]
    first = ranks[0]
    shared = {key: first[key] for key in ("student_parameters", "teacher_parameters", "estimate", "losses")}
    return {
        "name": name,
        "allocator": allocator,
        "overrides": overrides,
        **shared,
        "ranks": [rank["memory"] for rank in ranks],
    }


@contextmanager
def set_environment(variables: dict[str, str]) -> Iterator[None]:
    """For processes started inside."""
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]


def training(sizes: Sizes, folder: Path) -> list[str]:
    """Overrides of `potstill train`, but for the hardware."""
    return [
        *("data=files", "data.task=text_classification", f"data.source.root={folder}"),
        *(f"data.source.{split}={split}.jsonl" for split in ("train", "validation", "test")),
        *(f"data.batch_size={sizes.examples}", f"data.max_length={sizes.length}"),
        *("student=bert_tiny", f"student.tokenizer={folder / 'tokenizer'}", "teacher=pretrained", "teacher.path=null"),
        *architecture("student", sizes.student_width, sizes.student_layers, sizes),
        *architecture("teacher", sizes.teacher_width, sizes.teacher_layers, sizes),
        *("loss=kd", "optim.max_epochs=null", f"optim.max_steps={NUM_STEPS}", "optim.optimizer.lr=1.0e-4"),
        *("optim.warmup_fraction=0.0", f"hardware.micro_batch_examples={sizes.micro_batch}"),
        *("logger=none", "callbacks=none", "log_every=1", f"run.dir={folder / 'run'}", "run.name=memory"),
    ]


def architecture(who: str, width: int, num_layers: int, sizes: Sizes) -> list[str]:
    keys = {
        "model_type": "bert",
        "hidden_size": width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
        "vocab_size": sizes.vocabulary,
        "initializer_range": 0.02,
        "hidden_dropout_prob": 0.0,  # random numbers differ between ranks
        "attention_probs_dropout_prob": 0.0,
    }
    return [f"++{who}.config.{key}={value}" for key, value in keys.items()]


def write_texts(folder: Path, sizes: Sizes) -> None:
    """Texts of exactly `sizes.length` words at random, of 8 classes, and a tokenizer that knows these words."""
    words = [f"word{number}" for number in range(1000)]
    vocabulary = {word: number for number, word in enumerate(("[PAD]", "[UNK]", *words))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    fast.save_pretrained(folder / "tokenizer")
    generator = random.Random(0)
    for split, num_steps in {"train": NUM_STEPS, "validation": 1, "test": 1}.items():
        rows = [
            {"text": " ".join(generator.choices(words, k=sizes.length)), "label": f"class{row % 8}"}
            for row in range(num_steps * sizes.examples)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


class Witness(pl.Callback):
    """Wipes the peak of loading when the first step begins, and keeps the loss of every step."""

    def __init__(self) -> None:
        self.loading_peak, self.start = 0, 0
        self.losses: list[float] = []

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002
        self.loading_peak, self.start = kernel_bytes("VmHWM"), kernel_bytes("VmRSS")
        Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.losses.append(float(trainer.callback_metrics["train/loss"]))


def measure_rank(output: Path, overrides: list[str]) -> None:
    """`potstill train`, without a record: writes what this rank held to `<output>/<rank>.json`."""
    logging.getLogger("potstill").setLevel(logging.ERROR)
    imports = kernel_bytes("VmRSS")
    config = typed(composed("train", overrides), TrainConfig)
    place = check_parts(config)
    pl.seed_everything(config.seed, workers=True, verbose=False)
    objective = assemble_objective(config)
    source = assemble_source(config)
    models = assemble_models(config, source, objective)
    module = make_module(config, source, models, objective, place.world_size)
    teacher: Any = models.teacher
    counts = {
        "student_parameters": sum(each.numel() for each in models.student.parameters()),
        "teacher_parameters": sum(each.numel() for each in teacher.model.parameters()),
    }
    estimate = preflight(config, module, source.data, place).estimate
    trainer, witness = make_trainer(config, module, [], place), Witness()
    trainer.callbacks.append(witness)  # type: ignore[attr-defined]
    fit(trainer, module, source.data, None)
    memory = Memory(imports, witness.loading_peak, witness.start, kernel_bytes("VmHWM"))
    facts = {**counts, "estimate": asdict(estimate), "losses": witness.losses, "memory": asdict(memory)}
    write_json(output / f"{place.rank}.json", facts)


def kernel_bytes(name: str) -> int:
    """VmRSS: what of this process is in memory now; VmHWM: the most there was since the note was wiped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:"))


def losses_agree(variants: Sequence[dict[str, Any]]) -> bool:
    """Whether every variant went through the same losses, all steps of them, and these were no standstill."""
    expected = torch.tensor(variants[0]["losses"])
    same = all(
        len(each["losses"]) == len(expected) and torch.allclose(torch.tensor(each["losses"]), expected, LOSS_TOLERANCE)
        for each in variants
    )
    return same and len(expected) == NUM_STEPS and bool(expected.isfinite().all())


def worst_rank(variant: dict[str, Any]) -> Memory:
    """The largest of each figure over the ranks, less what the imports of that rank hold."""
    ranks = [Memory(**rank) for rank in variant["ranks"]]
    return Memory(
        imports=max(rank.imports for rank in ranks),
        loading_peak=max(rank.loading_peak - rank.imports for rank in ranks),
        start=max(rank.start - rank.imports for rank in ranks),
        training_peak=max(rank.training_peak - rank.imports for rank in ranks),
    )


def markdown(variants: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Lines of the table, in MB beside the imports; of each variant the largest rank, its larger peak in bold."""
    titles = ["MB per rank", "loading peak", "at the first step", "training peak", "of the first", "estimate"]
    titles += ["training peak / estimate", f"loss after {NUM_STEPS - 1} steps"]
    yield _line(titles)
    yield _line(["---"] + ["---:"] * (len(titles) - 1))
    whole = worst_rank(variants[0]).training_peak
    for variant in variants:
        memory, needed = worst_rank(variant), Estimate(**variant["estimate"]).total
        loading, training = _megabytes(memory.loading_peak), _megabytes(memory.training_peak)
        if memory.loading_peak > memory.training_peak:
            loading = f"**{loading}**"
        else:
            training = f"**{training}**"
        ratios = [memory.training_peak / whole, memory.training_peak / needed]
        sizes = [
            loading,
            _megabytes(memory.start),
            training,
            f"{ratios[0]:.2f}",
            _megabytes(needed),
            f"{ratios[1]:.2f}",
        ]
        yield _line([variant["name"], *sizes, f"{variant['losses'][-1]:.6f}"])


def _megabytes(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.0f}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    if sys.argv[1:2] == ["rank"]:
        with as_rank():
            measure_rank(Path(sys.argv[2]), sys.argv[3:])
    else:
        main()
