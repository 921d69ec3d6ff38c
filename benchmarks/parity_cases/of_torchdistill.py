"""torchdistill: losses take dictionaries of what modules gave, here of one module `m`."""

# N rows, C classes, D width, M examples in the memory, K negatives

from __future__ import annotations

from typing import Any

import torch
from torch import Generator, Tensor

from benchmarks.parity_cases.comparing import (
    Case,
    Loss,
    Tensors,
    by_overrides,
    draw_normal,
    examples,
    maps,
    theirs,
    vectors,
)
from potstill.losses.attention import attention_transfer
from potstill.losses.contrastive import MemoryBank
from potstill.losses.geometry import unit

PATHS = {
    "student_module_path": "m",
    "student_module_io": "output",
    "teacher_module_path": "m",
    "teacher_module_io": "output",
}
OUTPUTS = {"student_output_path": "m", "teacher_output_path": "m"}
NUM_EXAMPLES, NUM_NEGATIVES = 30, 4
CRD_TEMPERATURE = torch.tensor(0.07).item()  # they keep 0.07 in float32


def module(name: str, **options: Any) -> Any:
    return getattr(theirs("torchdistill.losses.mid_level"), name)(**options)


def of_outputs(loss: Any, student: Tensor, teacher: Tensor, *arguments: Any) -> Tensor:
    return loss({"m": {"output": student}}, {"m": {"output": teacher}}, *arguments)


def of_logits(name: str, **options: Any) -> Any:
    def loss(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
        return of_outputs(module(name, **PATHS, **options), student, teacher, labels)

    return loss


def of_taps(name: str, **options: Any) -> Any:
    return lambda student_tap, teacher_tap: of_outputs(module(name, **options), student_tap, teacher_tap)


def of_maps(mode: str) -> Any:
    at_pair = {"student": {"path": "m", "io": "output"}, "teacher": {"path": "m", "io": "output"}}
    return of_taps("ATLoss", at_pairs={"pair": at_pair}, mode=mode)


def spkd(p: float) -> Any:
    """Their SPKDLoss; with the norm that rows are brought to length 1 in."""

    def loss(student_tap: Tensor, teacher_tap: Tensor) -> Tensor:
        made = module("SPKDLoss", **OUTPUTS, reduction="batchmean")
        if p != 1.0:
            made.matmul_and_normalize = lambda rows: torch.nn.functional.normalize(rows @ rows.T, p=p)
        return of_outputs(made, student_tap, teacher_tap)

    return loss


def cckd(student_tap: Tensor, teacher_tap: Tensor) -> Tensor:
    kernel = {"type": "gaussian", "gamma": 0.4, "max_p": 2}
    paths = {"student_linear_path": "m", "teacher_linear_path": "m"}
    made = module("CCKDLoss", **paths, kernel_config=kernel, reduction="batchmean")
    return of_outputs(made, unit(student_tap), unit(teacher_tap))


def cckd_squared(student_tap: Tensor, teacher_tap: Tensor) -> Tensor:
    num_pairs = len(student_tap) ** 2
    return (num_pairs * cckd(student_tap, teacher_tap)).square() / num_pairs


def map_distance(student_tap: Tensor, teacher_tap: Tensor) -> Tensor:
    student, teacher = (tap.flatten(2).transpose(1, 2) for tap in (student_tap, teacher_tap))
    return (student.shape[1] * attention_transfer(student, teacher)).sqrt().mean()


def memories(generator: Generator) -> Tensors:
    """Embeddings of five of 30 examples, both memories, and whom to tell them from."""
    drawn = {name: draw_normal(generator, 5, 6) for name in ("student", "teacher")}
    drawn |= {name: unit(draw_normal(generator, NUM_EXAMPLES, 6)) for name in ("old_student", "old_teacher")}
    ids_N = torch.randperm(NUM_EXAMPLES, generator=generator)[:5]
    others = torch.randint(NUM_EXAMPLES - 1, (5, NUM_NEGATIVES), generator=generator)
    return {**drawn, "ids": ids_N, "negatives": others + (others >= ids_N.unsqueeze(1))}


def crd(student: Tensor, teacher: Tensor, ids: Tensor, negatives: Tensor, **old: Tensor) -> Tensor:
    options = {"input_size": 6, "output_size": NUM_EXAMPLES, "num_negative_samples": NUM_NEGATIVES, "eps": 0.0}
    paths = {"student_norm_module_path": "m", "teacher_norm_module_path": "m", "student_empty_module_path": "e"}
    made = module("CRDLoss", **options, **paths, num_samples=NUM_EXAMPLES).double()
    made.memory_v1.copy_(old["old_student"])
    made.memory_v2.copy_(old["old_teacher"])
    chosen = {"pos_idx": ids, "contrast_idx": torch.cat([ids.unsqueeze(1), negatives], dim=1)}
    return made({"m": {"output": unit(student)}, "e": {"input": chosen}}, {"m": {"output": unit(teacher)}})


def our_crd(*, with_own: bool) -> Loss:
    """with_own: estimate Z from positives as well."""

    def loss(student: Tensor, teacher: Tensor, ids: Tensor, negatives: Tensor, **old: Tensor) -> Tensor:
        bank = MemoryBank(NUM_EXAMPLES, 6).double()
        bank.student.copy_(old["old_student"])
        bank.teacher.copy_(old["old_teacher"])
        if with_own:
            known = torch.cat([ids.unsqueeze(1), negatives], dim=1)
            sides = ((student, bank.teacher), (teacher, bank.student))
            cosines = [rows[known] @ unit(anchor.detach()).unsqueeze(2) for anchor, rows in sides]
            means = [(each / CRD_TEMPERATURE).exp().mean() for each in cosines]
            bank.log_partition.copy_((NUM_EXAMPLES * torch.stack(means)).log())
        return bank(student, teacher, ids, negatives, temperature=CRD_TEMPERATURE).mean()

    return loss


def tapped(*terms: str) -> tuple[str, ...]:
    taps = [f"loss.term.{term}.{model}_tap=PATH" for term in terms for model in ("student", "teacher")]
    return (f"loss/term=[{','.join(terms)}]", *taps)


KD = ("loss/term=[ce,kd]", "loss.term.ce.weight=0.1", "loss.term.kd.weight=0.9", "loss.term.kd.temperature=4.0")
KD_ALONE = ("loss/term=[kd]", "loss.term.kd.temperature=4.0")
STANDARDISED = (
    *("loss/term=[ce,kd]", "loss.term.ce.weight=0.1", "loss.term.kd.weight=0.9"),
    *("loss.term.kd.temperature=2.0", "loss.term.kd.standardise=true"),
)
DIST = (
    *("loss/term=[dist_inter,dist_intra]", "loss.term.dist_inter.weight=2.0", "loss.term.dist_intra.weight=2.0"),
    *("loss.term.dist_inter.temperature=4.0", "loss.term.dist_intra.temperature=4.0"),
)
RKD = ("loss.term.rkd_distance_hidden.weight=25.0", "loss.term.rkd_angle_hidden.weight=50.0")

CASES = [
    Case(
        "torchdistill",
        "KDLoss temperature=4 alpha=0.1",
        examples,
        of_logits("KDLoss", temperature=4.0, alpha=0.1),
        "alpha weighs the labels, beta = 1 - alpha the KL with T^2 (batchmean)",
        KD,
    ),
    Case(
        "torchdistill",
        "KDLoss temperature=4 alpha=0",
        examples,
        of_logits("KDLoss", temperature=4.0, alpha=0.0),
        "without labels, or alpha=0: neither beta nor T^2",
        (*KD_ALONE, "loss.term.kd.t2_scaling=false"),
        differs=by_overrides(*KD_ALONE),
    ),
    Case(
        "torchdistill",
        "LogitStdKDLoss temperature=2 alpha=0.1",
        examples,
        of_logits("LogitStdKDLoss", temperature=2.0, alpha=0.1),
        "as KDLoss; eps 1e-7, unbiased deviation",
        STANDARDISED,
        differs=by_overrides(*STANDARDISED[:-1]),
    ),
    Case(
        "torchdistill",
        "DISTLoss beta=2 gamma=2 tau=4",
        examples,
        of_logits("DISTLoss", beta=2.0, gamma=2.0, tau=4.0),
        "beta, gamma: inter, intra; times tau^2; their norms are floored at 1e-8, ours have 1e-16 under the root",
        DIST,
    ),
    Case(
        "torchdistill",
        "ATLoss mode=code",
        maps,
        of_maps("code"),
        "mean of squares; several pairs are summed there, averaged here",
        (*tapped("attention_transfer"), "loss.term.attention_transfer.weight=1.0"),
    ),
    Case(
        "torchdistill",
        "ATLoss mode=paper",
        maps,
        of_maps("paper"),
        "the norm itself: sqrt(S d_b) of our values, S places",
        function="attention.attention_transfer, sqrt(S d_b)",
        ours=map_distance,
        differs=of_maps("code"),
    ),
    Case(
        "torchdistill",
        "PKTLoss",
        vectors,
        of_taps("PKTLoss", **PATHS),
        "eps 1e-7 inside their logarithm only; mean over N^2",
        tapped("pkt"),
    ),
    Case(
        "torchdistill",
        "RKDLoss dist_factor=25 angle_factor=50",
        vectors,
        of_taps("RKDLoss", **OUTPUTS, dist_factor=25.0, angle_factor=50.0, reduction="mean"),
        "mean over N^2 pairs and N^3 triples",
        (*tapped("rkd_distance_hidden", "rkd_angle_hidden"), *RKD),
    ),
    Case(
        "torchdistill",
        "SPKDLoss with rows at length 1 in L2",
        vectors,
        spkd(2.0),
        "theirs has L1 there, which no option of ours gives; the rest is the same",
        tapped("similarity_preserving"),
        differs=spkd(1.0),
    ),
    Case(
        "torchdistill",
        "CCKDLoss gaussian, of unit rows, (N^2 loss)^2 / N^2",
        vectors,
        cckd_squared,
        "theirs takes rows as they are, and the norm over N^2 where ours has the square over N^2",
        tapped("correlation_congruence"),
        differs=cckd,
    ),
    Case(
        "torchdistill",
        "CRDLoss eps=0",
        memories,
        crd,
        "log Z: theirs counts positives, ours negatives alone, here set to theirs; temperature 0.07 in float32",
        function="contrastive.MemoryBank",
        ours=our_crd(with_own=True),
        differs=our_crd(with_own=False),
    ),
]
