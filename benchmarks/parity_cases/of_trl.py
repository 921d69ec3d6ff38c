"""TRL: language models, mean over completion tokens, no T^2; beta weighs the teacher, as ours does."""

# B examples, L positions, C vocabulary, K known classes, N rows

from __future__ import annotations

from torch import Tensor

from benchmarks.parity_cases.comparing import FLOAT32, Case, by_overrides, heads, theirs, tokens
from potstill.data.batch import IGNORE
from potstill.losses.divergence import jsd
from potstill.losses.sparse import TopkMode, sparse_forward_kl, sparse_reverse_kl

JSD = "loss/term=[jsd]"
TOP_K = 4


def gkd(student: Tensor, teacher: Tensor, labels: Tensor | None, **options: float | str) -> Tensor:
    trainer = theirs("trl.experimental.gkd").GKDTrainer
    return trainer.generalized_jsd_loss(student, teacher, labels=labels, **options)


def gold(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    return theirs("trl.experimental.gold").GOLDTrainer.generalized_jsd_loss(student, teacher, labels=labels, beta=0.5)


def distillation_trainer(beta: float, temperature: float, **given: Tensor) -> Tensor:
    loss = theirs("trl.trainer.distillation_trainer")._chunked_divergence_loss
    parts = (given[name].float() for name in ("student_states", "teacher_states", "student_head", "teacher_head"))
    return loss(*parts, completion_mask=given["labels"] != IGNORE, beta=beta, temperature=temperature)[0]


def iw_opd(student: Tensor, teacher: Tensor, labels: Tensor, **options: float) -> Tensor:
    trainer = theirs("trl.experimental.iw_opd").IWOPDTrainer
    return trainer.generalized_jsd_loss(student, teacher, labels=labels, top_k=TOP_K, **options)


def of_heads(beta: float, temperature: float, **given: Tensor) -> Tensor:
    kept = given["labels"] != IGNORE
    student, teacher = (given[f"{model}_states"][kept] @ given[f"{model}_head"].T for model in ("student", "teacher"))
    return jsd(student, teacher, beta=beta, temperature=temperature, t2_scaling=False).mean()


def sparse(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, topk_mode: TopkMode) -> Tensor:
    """Forward KL over the teacher's top-k, from its log-probabilities at temperature 1."""
    student_NC, stored_NC = student[labels != IGNORE], teacher[labels != IGNORE].log_softmax(dim=-1)
    top = stored_NC.topk(TOP_K, dim=-1)
    return sparse_forward_kl(
        *(student_NC, top.values, top.indices),
        temperature=temperature,
        t2_scaling=False,
        topk_mode=topk_mode,
        log_normaliser_N=(stored_NC / temperature).logsumexp(dim=-1),
    ).values.mean()


def sparse_of_student(student: Tensor, teacher: Tensor, labels: Tensor) -> Tensor:
    """Reverse KL over the student's own top-k."""
    student_NC, stored_NC = student[labels != IGNORE], teacher[labels != IGNORE].log_softmax(dim=-1)
    ids_NK = student_NC.topk(TOP_K, dim=-1).indices
    return sparse_reverse_kl(student_NC, stored_NC.gather(-1, ids_NK), ids_NK).values.mean()


def whole_sequences(student: Tensor, teacher: Tensor, **_: Tensor) -> Tensor:
    return gkd(student, teacher, None, beta=0.5)


def every_position(student: Tensor, teacher: Tensor, **_: Tensor) -> Tensor:
    return jsd(student.flatten(0, 1), teacher.flatten(0, 1), beta=0.5).mean()


def _gkd(beta: float) -> Case:
    return Case(
        "trl",
        f"GKDTrainer.generalized_jsd_loss beta={beta}",
        tokens,
        lambda **given: gkd(**given, beta=beta),
        "beta weighs the teacher; 0 and 1 are forward and reverse KL; mean over labelled tokens",
        (JSD, f"loss.term.jsd.beta={beta}"),
        differs=by_overrides(JSD, f"loss.term.jsd.beta={1.0 - beta}") if beta != 0.5 else None,
    )


CASES = [
    *(_gkd(beta) for beta in (0.0, 0.1, 0.5, 0.9, 1.0)),
    Case(
        "trl",
        "GKDTrainer.generalized_jsd_loss beta=0.1 temperature=2",
        tokens,
        lambda **given: gkd(**given, beta=0.1, temperature=2.0),
        "no T^2; and the trainer never passes its `temperature`, which is that of sampling",
        (JSD, "loss.term.jsd.beta=0.1", "loss.term.jsd.temperature=2.0", "loss.term.jsd.t2_scaling=false"),
        differs=by_overrides(JSD, "loss.term.jsd.beta=0.1", "loss.term.jsd.temperature=2.0"),
    ),
    Case(
        "trl",
        "GKDTrainer.generalized_jsd_loss without labels",
        tokens,
        whole_sequences,
        "`batchmean` of [B, L, C] divides by B: times L",
        function="divergence.jsd, times L",
        ours=lambda student, **given: student.shape[1] * every_position(student, **given),
        differs=every_position,
    ),
    Case(
        "trl",
        "GKDTrainer.generalized_jsd_loss reduction=mean",
        tokens,
        lambda **given: gkd(**given, beta=0.5, reduction="mean"),
        "divides by C as well",
        function="divergence.jsd, over C",
        ours=lambda student, **given: by_overrides(JSD)(student=student, **given) / student.shape[-1],
        differs=by_overrides(JSD),
    ),
    Case(
        "trl",
        "GOLDTrainer.generalized_jsd_loss beta=0.5",
        tokens,
        gold,
        "as GKDTrainer",
        (JSD, "loss.term.jsd.beta=0.5"),
    ),
    *(
        Case(
            "trl",
            f"DistillationTrainer (its chunked divergence) beta={beta} temperature={temperature}",
            heads,
            lambda beta=beta, temperature=temperature, **given: distillation_trainer(beta, temperature, **given),
            "float32; no T^2; default beta 1, reverse KL",
            function=f"divergence.jsd beta={beta} temperature={temperature} t2_scaling=False",
            ours=lambda beta=beta, temperature=temperature, **given: of_heads(beta, temperature, **given),
            tolerance=FLOAT32,
        )
        for beta, temperature in ((0.0, 1.0), (0.1, 2.0), (1.0, 1.0))
    ),
    Case(
        "trl",
        "IWOPDTrainer.generalized_jsd_loss beta=0 top_k=4 temperature=2",
        tokens,
        lambda **given: iw_opd(**given, beta=0.0, temperature=2.0),
        "the teacher's top-k and one bucket for the rest, tempered first; no T^2",
        function="sparse.sparse_forward_kl topk_mode=tail, log_normaliser_N given",
        ours=lambda **given: sparse(**given, temperature=2.0, topk_mode="tail"),
    ),
    Case(
        "trl",
        "IWOPDTrainer.generalized_jsd_loss beta=0 top_k=4 add_tail=False",
        tokens,
        lambda **given: iw_opd(**given, beta=0.0, add_tail=False),
        "both models renormalised over the teacher's top-k",
        function="sparse.sparse_forward_kl topk_mode=renormalise_both",
        ours=lambda **given: sparse(**given, temperature=1.0, topk_mode="renormalise_both"),
    ),
    Case(
        "trl",
        "IWOPDTrainer.generalized_jsd_loss beta=1 top_k=4",
        tokens,
        lambda **given: iw_opd(**given, beta=1.0),
        "reverse KL over the student's own top-k and a bucket",
        function="sparse.sparse_reverse_kl topk_mode=tail, ids of the student",
        ours=sparse_of_student,
    ),
]
