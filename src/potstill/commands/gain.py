"""potstill gain: what a round of mining gained and lost, on items that were not mined, and whether to go on."""

from __future__ import annotations

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from potstill.commands.mine_data import ask, models_of, read_run, read_source, slices_of
from potstill.commands.recording import logged
from potstill.commands.shared import Source
from potstill.config.compose import typed
from potstill.config.mine_schema import GainConfig
from potstill.config.schema import TrainConfig
from potstill.data.pool import SUMMARY
from potstill.errors import UserError
from potstill.evaluation.scores import Scores
from potstill.mining.gain import gain, is_gain, why_stop
from potstill.reporting.mine_table import plain_rows, print_gain
from potstill.tracking import record
from potstill.tracking.manifest import manifest_of, write_json

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1


def main(config: DictConfig) -> None:
    options = typed(config, GainConfig)
    check(options)
    found, output = gain_of(options), Path(options.output)
    write_json(output / "gain.json", found)
    print_gain(found)
    _log(options, found, output)
    log.info("\nWritten: %s", output / "gain.json")


def check(options: GainConfig) -> None:
    for key in ("alpha", "gone"):
        value = getattr(options, key)
        if not 0 < value < 1:
            raise UserError(key, value, "must lie strictly between 0 and 1.", f"For example: {key}=0.05")
    for name in (SUMMARY, "held_back.jsonl"):
        if not Path(options.mined, name).is_file():
            problem = f"holds no {name}, so nothing was mined there."
            raise UserError("mined", options.mined, problem, "Give the directory that potstill mine wrote.")


def gain_of(options: GainConfig) -> dict[str, Any]:
    """What gain.json holds. The test set is not looked at: rounds that were chosen by it would leave no fair test."""
    after, config = read_run(options.run)
    runs = {"run": after, "before": read_run(options.before, "before")[0]}
    source = read_source(config, runs)
    _refuse_other_validation(runs)
    mined = json.loads(Path(options.mined, SUMMARY).read_text(encoding="utf-8"))
    found = _measured(config, source, runs, _held_back(options, source))
    names = {each["cluster"]: each["name"] for each in mined["clusters"]}
    found["clusters"] = [{"name": names[each["cluster"]], **each} for each in found["clusters"]]
    remaining = _remaining(mined)
    stop = why_stop(found, **remaining, alpha=options.alpha, gone=options.gone)
    places = {key: str(path) for key, path in runs.items()}
    is_better = is_gain(found["difference"], options.alpha)
    return {"schema_version": SCHEMA_VERSION, **places, **found, **remaining, "gained": is_better, "stop": stop}


def _measured(
    config: TrainConfig, source: Source, runs: dict[str, Path], clusters: dict[str, int | None]
) -> dict[str, Any]:
    """clusters: of every item that is held back, by its hash."""
    items = source.data.item_hashes("validation")
    kept = [place for place, item in enumerate(items) if item in clusters]
    scores = ask(models_of(config, source, runs), source, source.data.view("validation"), "students on validation")
    held = {"after" if name == "run" else name: _only(each, kept) for name, each in scores.items()}
    columns = {**slices_of(source, "validation"), "label": _labels(source)}
    columns = {name: [values[place] for place in kept] for name, values in columns.items()}
    return gain(held, columns, [clusters[items[place]] for place in kept])


def _remaining(mined: dict[str, Any]) -> dict[str, int | None]:
    """Proposals that the budget and the pool still have; None where nobody counts."""
    has = {"left": mined["budget"]["left"], "in_pool": mined["pool"]}
    return {name: None if number is None else number - mined["budget"]["proposed"] for name, number in has.items()}


def _refuse_other_validation(runs: dict[str, Path]) -> None:
    """Both must have been kept from the same items."""
    first, second = (manifest_of(run)["validated_on"] for run in runs.values())
    if first != second:
        problem = f"was validated on other items than {runs['run']}: their difference would say nothing."
        raise UserError("before", str(runs["before"]), problem, "Train both with the same validation split.")


def _held_back(options: GainConfig, source: Source) -> dict[str, int | None]:
    """The cluster that each held-back validation item is nearest to, by its hash."""
    lines = Path(options.mined, "held_back.jsonl").read_text(encoding="utf-8").splitlines()
    clusters = {row["item"]: row["cluster"] for row in map(json.loads, lines)}
    if not clusters.keys() & set(source.data.item_hashes("validation")):
        problem = "holds no validation item of this run back: there is nothing to measure a gain on."
        raise UserError("mined", options.mined, problem, "Mine again with held_back=0.5, on this data.")
    return clusters


def _only(scores: Scores, examples: list[int]) -> Scores:
    """Of a classifier, whose rows are the examples: those of these numbers, numbered anew."""
    columns = {
        name: values[examples] for name, values in vars(scores).items() if name not in ("example", "num_examples")
    }
    return Scores(**columns, example=np.arange(len(examples)), num_examples=len(examples))


def _labels(source: Source) -> list[str]:
    names = source.label_names or []
    return [names[label] if label >= 0 else "(none)" for label in source.data.examples["validation"]["label"][:]]


def _log(options: GainConfig, found: dict[str, Any], output: Path) -> None:
    if not options.logger:
        return
    with logged(options.logger, output, job_type="gain", group="mine") as loggers:
        record.log_config(loggers, {"gain": asdict(options)})
        tables = {f"gain/{name}": plain_rows(found[name]) for name in ("slices", "clusters")}
        record.log_tables(loggers, tables)
        record.log_summary(loggers, {f"gain/{name}": found["difference"][name] for name in ("value", "p_value")})
