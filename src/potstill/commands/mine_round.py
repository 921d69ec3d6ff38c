"""One round of mining: failures, their clusters and, within the budget, what to ask the teacher next."""

# F failures, P items of the pool, D width of a vector

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from potstill.commands.mine_data import (
    Asked,
    Pool,
    ask,
    failures_of,
    is_held_back,
    models_of,
    pool_view,
    read_pool,
    read_run,
    read_source,
)
from potstill.commands.shared import Source
from potstill.config.mine_schema import MineConfig
from potstill.config.schema import TrainConfig
from potstill.data.pool import EXPORTS, num_added
from potstill.data.texts import texts_of
from potstill.errors import UserError
from potstill.generation.overlap import read_manifest
from potstill.generation.terms import RECORDS
from potstill.mining.clusters import Clusters, cluster, described, latent_vectors, unit
from potstill.mining.guard import Guard, left_out
from potstill.mining.prompts import prompts
from potstill.mining.propose import Pick, nearest_picks, quotas, random_picks
from potstill.models.embed import embed
from potstill.reporting.progress import tracked

SCHEMA_VERSION = 1
LATENT = "TF-IDF of words and pairs of words, reduced"

Rows = list[dict[str, Any]]


@dataclass
class Mined:
    """summary: what mined.json holds. The others: lines of the file of that name; held_back has no texts."""

    summary: dict[str, Any]
    failures: Rows = field(default_factory=list)
    proposals: Rows = field(default_factory=list)
    prompts: Rows = field(default_factory=list)
    held_back: Rows = field(default_factory=list)


@dataclass(frozen=True)
class Round:
    """What a round begins with. texts: prompts by split. budget: proposals of this round, made before, and left."""

    options: MineConfig
    config: TrainConfig
    run: Path
    source: Source
    texts: dict[str, list[str]]
    guard: Guard
    budget: dict[str, Any]


def mine(options: MineConfig) -> Mined:
    """Raises UserError where there is nobody to mine, or nothing to take from."""
    given = begin(options)
    pool, reasons = _pool(given)
    asked, held = _asked(given, pool)
    found = [row for each in asked.values() for row, failed in zip(each.rows, each.failed, strict=True) if failed]
    is_test_F = given.guard.is_test([row["text"] for row in found])
    failures = [row for row, is_test in zip(found, is_test_F, strict=True) if not is_test]
    mined = Mined(
        {
            "schema_version": SCHEMA_VERSION,
            "run": str(given.run),
            "splits": {split: _counts(each) for split, each in asked.items()},
            "held_back": len(held),
            "failures": len(failures),
            "left_out": {"failures": {"test item": int(is_test_F.sum())}, "pool": reasons},
            "pool": len(pool.texts) if pool else None,
            RECORDS: pool.licence_records if pool else [],
            "pick": options.pick,
            "embedding": options.encoder or LATENT,
            "budget": {**given.budget, "proposed": 0, "asked_for": 0},
            "clusters": [],
        },
        held_back=[{"item": item, "cluster": None} for item in held],
    )
    if failures:
        everything = [row["text"] for each in asked.values() for row in each.rows]
        _propose(mined, given, failures, held, pool, everything)
    return mined


def begin(options: MineConfig) -> Round:
    run, config = read_run(options.run)
    budget = _budget(options, num_added(config.data.source.get("added") or ()))
    source = read_source(config, {"run": run})
    texts = {split: list(texts_of(table).prompt) for split, table in source.data.examples.items()}
    manifest = read_manifest(options.test_manifest, "test_manifest") if options.test_manifest else ()
    return Round(options, config, run, source, texts, Guard(texts["test"], manifest), budget)


def _budget(options: MineConfig, taken: int) -> dict[str, Any]:
    """taken: proposals that the run was trained on. Raises UserError where they are all that there may be."""
    if options.total is not None and taken >= options.total:
        problem = f"is used up: the run was trained on {taken:,} proposals."
        raise UserError("total", options.total, problem, f"Raise it, for example: total={taken + options.budget}")
    left = None if options.total is None else options.total - taken
    return {"round": options.budget if left is None else min(options.budget, left), "before": taken, "left": left}


def _pool(given: Round) -> tuple[Pool | None, dict[str, int]]:
    """What may be proposed; how many items may not, by reason."""
    if given.options.pool is None:
        return None, {}
    pool = read_pool(given.options.pool, given.config.data, given.source)
    known = {"train": given.texts["train"], "validation": given.texts["validation"]}
    reasons = left_out(pool.texts, given.guard, **known)
    allowed = np.flatnonzero([reason is None for reason in reasons])
    counts = dict(Counter(reason for reason in reasons if reason))
    if not len(allowed):
        listed = ", ".join(f"{count:,} {reason}" for reason, count in counts.items())
        raise UserError("pool", len(reasons), f"has nothing that may be proposed: {listed}.", "Give other inputs.")
    return pool.only(allowed), counts


def _asked(given: Round, pool: Pool | None) -> tuple[dict[str, Asked], dict[str, str]]:
    """What both models say, by split; text of every validation item that is held back, by its hash."""
    data, found = given.source.data, {}
    is_held_E = is_held_back(given.texts["validation"], given.options.held_back)
    models = models_of(given.config, given.source, {"run": given.run})
    names = given.source.label_names or []
    for split in given.options.splits:
        if split == "pool":
            assert pool
            view, texts, items = pool_view(pool, given.source), pool.texts, pool.items
        else:
            view, texts, items = data.view(split), given.texts[split], data.item_hashes(split)
        scores = ask(models, given.source, view, f"teacher and student on {split}")
        each = failures_of(split, scores, texts, items, names, trust_teacher=given.options.trust_teacher)
        found[split] = each.only(~is_held_E) if split == "validation" else each
    places, items = np.flatnonzero(is_held_E).tolist(), data.item_hashes("validation")
    return found, {items[place]: given.texts["validation"][place] for place in places}


def _propose(
    mined: Mined, given: Round, failures: Rows, held: dict[str, str], pool: Pool | None, background: list[str]
) -> None:
    """Put clusters, proposals and prompts into `mined`."""
    options, budget = given.options, mined.summary["budget"]
    texts = [[row["text"] for row in failures], pool.texts if pool else [], list(held.values())]
    failures_FD, pool_PD, held_ED = _vectors(options, texts)
    clusters = cluster(failures_FD, options.clusters, options.seed)
    about = described(clusters, failures, background)
    asked = quotas([each["size"] for each in about], budget["round"])
    picks = _picks(options, clusters, failures_FD, pool_PD, budget["round"]) if pool else []
    if options.template is not None:
        sizes = {"num_examples": options.examples, "per_prompt": options.per_prompt}
        mined.prompts = prompts(options.template, clusters, about, failures, asked, **sizes)
    numbers = clusters.of_item.tolist()
    mined.failures = [{**row, "cluster": number} for row, number in zip(failures, numbers, strict=True)]
    mined.proposals = _proposals(picks, pool, failures) if pool else []
    nearest = clusters.nearest(held_ED).tolist() if held else []
    mined.held_back = [{"item": item, "cluster": number} for item, number in zip(held, nearest, strict=True)]
    taken = Counter(pick.cluster for pick in picks)
    mined.summary["clusters"] = [
        {**each, "asked_for": asked[number], "proposed": taken[number]} for number, each in enumerate(about)
    ]
    budget |= {"proposed": len(picks), "asked_for": sum(row["count"] for row in mined.prompts)}
    given.guard.check(texts[0], "the run's test split, in mined.jsonl")
    given.guard.check([pool.texts[pick.item] for pick in picks] if pool else [], "the run's test split, in the pool")


def _vectors(options: MineConfig, texts: Sequence[list[str]]) -> tuple[NDArray, NDArray, NDArray]:
    """Of failures, pool and held-back items, in one space; the last have no say in what it is."""
    failures, pool, held = texts
    if options.encoder is None:
        known, others = latent_vectors([*failures, *pool], held, options.seed)
    else:
        both = embed(options.encoder, [*failures, *pool, *held], key="encoder", progress=tracked)
        known, others = np.split(unit(both), [len(failures) + len(pool)])
    return known[: len(failures)], known[len(failures) :], others


def _picks(options: MineConfig, clusters: Clusters, failures_FD: NDArray, pool_PD: NDArray, budget: int) -> list[Pick]:
    if options.pick == "random":
        return random_picks(budget, len(pool_PD), options.seed)
    return nearest_picks(clusters, failures_FD, pool_PD, budget)


def _proposals(picks: Sequence[Pick], pool: Pool, failures: Rows) -> Rows:
    rows, exports = [], [record["export"] for record in pool.licence_records]
    written = {EXPORTS: exports} if exports else {}
    for pick in picks:
        near = None if pick.failure is None else failures[pick.failure]["item"]
        about = {"cluster": pick.cluster, "nearest": near, "distance": pick.distance}
        rows.append({**pool.rows[pick.item], **about, **written})
    return rows


def _counts(asked: Asked) -> dict[str, int]:
    labelled = sum(row["is_gold"] for row in asked.rows)
    return {"n": len(asked.rows), "labelled": labelled, "failures": int(asked.failed.sum())}
