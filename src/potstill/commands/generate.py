"""potstill generate: prompts in, a teacher's text out, nothing paid for twice, its licence on record."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from potstill.commands.generation import Parts, assemble, outcomes
from potstill.config.build import build
from potstill.config.compose import typed
from potstill.config.text_schema import GenerateConfig
from potstill.config.text_validate import refuse_unread, validate_generation
from potstill.generation.asking import ask_all
from potstill.generation.budget import SpentError
from potstill.generation.card import card
from potstill.generation.export import Exporter, damage, seal
from potstill.generation.ledger import Ledger
from potstill.generation.progress import status_line
from potstill.generation.terms import check_terms
from potstill.interrupts import run_interruptible
from potstill.tracking import record
from potstill.tracking.lock import is_locked, locked
from potstill.tracking.logger import finish, with_metrics_file
from potstill.tracking.manifest import closed, manifest, write_json, write_text
from potstill.tracking.secrets import redact

log = logging.getLogger(__name__)


def main(config: DictConfig) -> None:
    if config.status:
        directory = Path(config.ledger.dir)
        print(status_line(directory, is_running=is_locked(directory)))
        return
    refuse_unread(HydraConfig.get().overrides.task)
    options = typed(config, GenerateConfig)
    validate_generation(options)
    override = check_terms(options.teacher.terms, options.teacher.model, options.teacher.revision)
    generate(options, assemble(options, override))


def generate(options: GenerateConfig, parts: Parts) -> None:
    """Ask for what is missing, export what is there. A cap that is reached ends the asking, not the export."""
    directory, ledger_dir = Path(options.run.dir), Path(options.ledger.dir)
    if parts.override:
        log.warning("The terms of %s do not allow this. Reason on record: %s", options.teacher.model, parts.override)
    for each in (directory, ledger_dir):
        each.mkdir(parents=True, exist_ok=True)
    facts = _facts(options, parts)
    status, spent = "failed", None
    with locked(ledger_dir, "ledger.dir"):
        write_text(directory / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(redact(asdict(options)))))
        ledger = Ledger(ledger_dir, options.ledger.max_mb)
        try:
            spent = _ask(options, parts, ledger)
            export(options, parts, ledger, facts, complete=spent is None)
            status = "failed" if spent else "finished"
        except KeyboardInterrupt:
            status = "interrupted"
            raise
        finally:
            facts["ledger"] = ledger.counts()
            ledger.close()
            end = closed(facts, status)
            write_json(directory / "manifest.json", end)
            _log(options, end, status)
    if spent:
        raise spent


def export(options: GenerateConfig, parts: Parts, ledger: Ledger, facts: dict[str, Any], *, complete: bool) -> None:
    folder = Path(options.run.dir) / "export"
    if problem := damage(folder):
        log.warning("The export was damaged (%s), and is made anew from the ledger.", problem)
    found = outcomes(options, parts, ledger)
    if parts.judge:
        found = parts.judge.judged(found, ledger)
    made = Exporter(folder, parts.plan.table, options.generation.shard_rows).write(found)
    terms = options.teacher.terms
    made |= {"complete": complete, "terms": asdict(terms), "override_reason": parts.override}
    write_text(folder / "README.md", card(made, terms, parts.override))
    seal(folder, made)
    facts["export"] = {name: made[name] for name in ("rows", "hash", "counts", "complete")}
    log.info("\n%s", "\n".join(f"{name:<28}{count:>10,}" for name, count in made["counts"].items()))
    log.info("Exported: %s rows, hash %s\n%s", made["rows"], made["hash"][:12], folder)


def _ask(options: GenerateConfig, parts: Parts, ledger: Ledger) -> SpentError | None:
    def verdicts() -> Iterator[Any]:
        assert parts.judge
        return parts.judge.requests(outcomes(options, parts, ledger))

    try:
        run_interruptible(ask_all(options, parts.teacher, parts.plan, ledger, verdicts if parts.judge else None))
    except SpentError as error:
        return error
    return None


def _facts(options: GenerateConfig, parts: Parts) -> dict[str, Any]:
    terms = options.teacher.terms
    facts = manifest(
        seeds={} if options.generation.seed is None else {"sampling": options.generation.seed},
        fingerprints={"prompts": parts.plan.table._fingerprint, "endpoint": parts.teacher.name},
        licences={options.teacher.model: f"{terms.url}, train_on_outputs: {terms.train_on_outputs}"},
    )
    return {**facts, "terms": asdict(terms), "override_reason": parts.override}


def _log(options: GenerateConfig, facts: dict[str, Any], status: str) -> None:
    if not options.logger:
        return
    place = {"save_dir": options.run.dir, "name": options.run.name, "group": "generate", "job_type": "generate"}
    loggers = with_metrics_file(build(options.logger, "logger", **place), options.run.dir)
    try:
        record.log_config(loggers, asdict(options))
        record.log_manifest(loggers, facts)
        counts = {**facts["ledger"], **facts.get("export", {}).get("counts", {})}
        numbers = {f"generate/{name}": count for name, count in counts.items()}
        record.log_summary(loggers, numbers)
        for each in loggers:
            each.log_metrics(numbers, step=0)
            each.save()
    finally:
        finish(loggers, status)
