"""What padding costs: a distillation step on short texts, packed, in micro-batches of like length, and padded.

    OMP_NUM_THREADS=1 python -m benchmarks.padding --suite cpu --out benchmarks/results/padding.json

Two distributions of lengths: `lognormal` (mean 33 tokens, at most 128), and `clinc150`, that of its training queries,
where the folder `shared` is there. A step is the teacher's forward, the student's forward and backward, and AdamW, on
global batches drawn at random, the same for all ways. `padded`: every text as long as the longest of its batch.
`grouped`: the batch cut by length into micro-batches (`hardware.micro_batch_tokens`). `packed`: `hardware.packing`. All
must agree in loss and gradient before a time counts. Slots per token are counted where the second layer begins.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from benchmarks import measure
from benchmarks.measure import Figure, Report
from potstill.data.batch import Batch
from potstill.data.microbatch import cut
from potstill.losses.divergence import forward_kl
from potstill.models.forward import forward
from potstill.models.packed_attention import GROUPS
from potstill.models.packing import set_packing
from potstill.models.task import TASKS

SHARED = Path(os.environ.get("POTSTILL_SHARED", "../shared"))
TASK = TASKS["text_classification"]
NUM_CLASSES, VOCABULARY, BATCH_SIZE = 150, 30_522, 64
MEAN_LOG, SD_LOG, MAX_LENGTH = np.log(33) - 0.8**2 / 2, 0.8, 128  # mean 33 before the cap
TOLERANCE = 1e-4  # of the largest gradient; summation order differs

Shape = tuple[int, int]  # width, layers


@dataclass(frozen=True)
class Sizes:
    teacher: Shape
    student: Shape
    num_batches: int
    num_rounds: int
    max_tokens: int  # of a micro-batch of `grouped`
    device: str = "cpu"


SUITES = {
    "smoke": Sizes((32, 2), (32, 2), num_batches=10, num_rounds=0, max_tokens=256),
    "cpu": Sizes((256, 4), (256, 2), num_batches=2, num_rounds=9, max_tokens=512),
    "gpu": Sizes((768, 12), (768, 6), num_batches=5, num_rounds=9, max_tokens=2048, device="cuda"),
}


def measured(suite: str) -> Report:
    report, sizes = Report(), SUITES[suite]
    for name, lengths in (("lognormal", lognormal()), ("clinc150", clinc150())):
        if isinstance(lengths, str):
            report.figures[f"{name}/slots_per_token"] = measure.not_measured(lengths)
        elif sizes.device == "cuda" and not torch.cuda.is_available():
            report.figures[f"{name}/slots_per_token"] = measure.not_measured("no accelerator")
        else:
            compare(name, lengths, sizes, report)
    return report


def compare(name: str, lengths: np.ndarray, sizes: Sizes, report: Report) -> None:
    """Put the figures of one distribution of lengths into the report."""
    generator = np.random.default_rng(0)
    batches = [batch_of(generator.choice(lengths, BATCH_SIZE), generator) for _ in range(sizes.num_batches)]
    batches = [batch.to(sizes.device) for batch in batches]
    models = [model_of(shape, seed) for seed, shape in enumerate((sizes.teacher, sizes.student))]
    teacher, student = (model.to(sizes.device) for model in models)  # type: ignore[arg-type]
    steps = Steps(student, teacher, sizes.max_tokens)
    report.figures[f"{name}/padded_slots_per_token"] = Figure(steps.slots_per_token("off", batches))
    report.figures[f"{name}/slots_per_token"] = Figure(steps.slots_per_token("on", batches))
    steps.refuse_difference(batches[0])
    if not sizes.num_rounds:
        return
    ways = {"padded": steps.padded, "grouped": steps.grouped, "packed": steps.packed}
    wait = torch.cuda.synchronize if sizes.device == "cuda" else None
    runs = {way: lambda step=step: [step(batch) for batch in batches] for way, step in ways.items()}
    rounds = measure.in_turns(runs, sizes.num_rounds, synchronise=wait)
    for clock in ("wall", "cpu"):
        for way in ("packed", "grouped"):
            report.figures[f"{name}/{way}_{clock}"] = measure.ratio(rounds, way, "padded", clock)
    report.rounds[name] = rounds


def lognormal() -> np.ndarray:
    draws = np.random.default_rng(1).lognormal(MEAN_LOG, SD_LOG, size=20_000)
    return np.clip(np.round(draws), 3, MAX_LENGTH).astype(np.int64)


def clinc150() -> np.ndarray | str:
    """Tokens of every fifth training query; or why they are not there."""
    file, tokenizer = SHARED / "data/clinc150/train.jsonl", SHARED / "teachers/clinc150_minilm_l6"
    if not file.is_file() or not tokenizer.is_dir():
        return "the folder shared is not there"
    texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()[::5]]
    return np.array([len(ids) for ids in AutoTokenizer.from_pretrained(tokenizer)(texts)["input_ids"]])


def batch_of(lengths: np.ndarray, generator: np.random.Generator) -> Batch:
    mask = torch.from_numpy((np.arange(lengths.max()) < lengths[:, None]).astype(np.int64))
    ids = torch.from_numpy(generator.integers(1, VOCABULARY, size=mask.shape)) * mask
    labels = torch.from_numpy(generator.integers(NUM_CLASSES, size=len(lengths)))
    return Batch({"input_ids": ids, "attention_mask": mask}, labels, tuple(map(str, range(len(lengths)))))


def model_of(shape: Shape, seed: int) -> PreTrainedModel:
    """seed: another one for teacher and student, which would agree otherwise, and leave nothing to learn."""
    torch.manual_seed(seed)
    width, num_layers = shape
    config = AutoConfig.for_model(
        "bert",
        hidden_size=width,
        num_hidden_layers=num_layers,
        num_attention_heads=max(1, width // 64),
        intermediate_size=4 * width,
        vocab_size=VOCABULARY,
        num_labels=NUM_CLASSES,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return AutoModelForSequenceClassification.from_config(config)


class Steps:
    """The ways of a step, on one student and one teacher."""

    def __init__(self, student: PreTrainedModel, teacher: PreTrainedModel, max_tokens: int) -> None:
        self.student, self.teacher, self.max_tokens = student.train(), teacher.eval(), max_tokens
        self.optimizer = torch.optim.AdamW(student.parameters(), lr=1e-5, fused=True)  # as in training

    def padded(self, batch: Batch) -> None:
        self._step("off", [batch], len(batch))

    def packed(self, batch: Batch) -> None:
        self._step("on", [batch], len(batch))

    def grouped(self, batch: Batch) -> None:
        self._step("off", cut(batch, None, self.max_tokens), len(batch))

    def _step(self, choice: str, pieces: list[Batch], num_rows: int) -> None:
        self.backward(choice, pieces, num_rows)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def backward(self, choice: str, pieces: list[Batch], num_rows: int) -> torch.Tensor:
        self._choose(choice)
        total = torch.zeros((), device=pieces[0].labels.device)
        for piece in pieces:
            with torch.no_grad():
                teacher_NC = forward(self.teacher, piece, TASK, TASK.output).logits
            student_NC = forward(self.student, piece, TASK, TASK.output).logits
            assert teacher_NC is not None
            assert student_NC is not None
            loss = forward_kl(student_NC, teacher_NC, temperature=2.0).sum() / num_rows
            loss.backward()
            total += loss.detach()
        return total

    def _choose(self, choice: str) -> None:
        for model in (self.student, self.teacher):
            model.packs_texts = GROUPS if choice == "on" else None  # type: ignore[assignment]

    def slots_per_token(self, choice: str, batches: list[Batch]) -> float:
        for model in (self.student, self.teacher):
            set_packing(model, choice, "student")  # which tries it out
        with counted(self.student) as slots:
            for batch in batches:
                forward(self.student, batch, TASK, TASK.output)
        return sum(slots) / sum(int(batch.inputs["attention_mask"].sum()) for batch in batches)

    def refuse_difference(self, batch: Batch) -> None:
        """Raises RuntimeError where the ways do not agree on loss and gradient."""
        found = {}
        for way, choice, pieces in (
            ("padded", "off", [batch]),
            ("packed", "on", [batch]),
            ("grouped", "off", cut(batch, None, self.max_tokens)),
        ):
            self.optimizer.zero_grad()
            loss = self.backward(choice, pieces, len(batch))
            gradients = [parameter.grad for parameter in self.student.parameters() if parameter.grad is not None]
            found[way] = torch.cat([loss.view(1), *(gradient.flatten() for gradient in gradients)])
        self.optimizer.zero_grad()
        for way, values in found.items():
            furthest = float((values - found["padded"]).abs().max() / found["padded"][1:].abs().max())
            if furthest > TOLERANCE:
                raise RuntimeError(f"{way} differs from padded by {furthest:.1e} of the largest gradient")


@contextmanager
def counted(model: PreTrainedModel) -> Iterator[list[int]]:
    """Positions of every pass that reach the second layer."""
    slots: list[int] = []

    def count(_layer: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        slots.append(args[0].shape[:2].numel())

    hook: Callable[..., None] = count
    with model.get_submodule("bert.encoder.layer.1").register_forward_pre_hook(hook):
        yield slots


if __name__ == "__main__":
    measure.command(Path(__file__).stem, measured, __doc__)
