"""potstill compare: the runs of sweeps, ranked, and which differences hold up."""

from __future__ import annotations

import importlib.util
import json
import logging
from pathlib import Path

from omegaconf import DictConfig

from potstill.config.compose import typed
from potstill.config.schema import CompareConfig
from potstill.errors import UserError
from potstill.evaluation.between_runs import Evaluated, side_by_side
from potstill.reporting.comparison import print_comparison
from potstill.reporting.side_by_side import print_side_by_side, side_by_side_page
from potstill.sweeps.comparison import compare
from potstill.sweeps.evaluated import is_evaluated, read_evaluated, refuse_different
from potstill.sweeps.importance import INSTALL
from potstill.sweeps.results import Result, prefixes, read_results
from potstill.tracking.manifest import write_json, write_text

log = logging.getLogger(__name__)

REMOTE = "wandb:"
RUN = "/runs/"  # of a path that names one run of W&B


def main(config: DictConfig) -> None:
    """Evaluated runs on test data, item by item; anything else, or by a given `metric`, ranked on validation."""
    options = typed(config, CompareConfig)
    output = output_of(options)
    if options.metric is None and are_evaluated(options.paths):
        _on_test(options, output)
        return
    _require_plotly(options)
    results = read(options.paths)
    comparison = compare(results, metric=options.metric, cost=options.cost, higher_is_better=options.higher_is_better)
    print_comparison(comparison)
    write_json(output / "comparison.json", {"paths": options.paths, **comparison})
    written = [output / "comparison.json"]
    if options.html:
        from potstill.reporting.comparison_page import page  # needs plotly

        write_text(output / "comparison.html", page(comparison, options.paths))
        written.append(output / "comparison.html")
    log.info("\nWritten: %s", ", ".join(map(str, written)))


def are_evaluated(paths: list[str]) -> bool:
    """Two or more, and each an evaluated run."""
    return len(paths) > 1 and all(
        RUN in path if path.startswith(REMOTE) else is_evaluated(Path(path)) for path in paths
    )


def _on_test(options: CompareConfig, output: Path) -> None:
    runs = read_evaluations(options.paths)
    refuse_different(runs)
    file = output / "comparison.json"
    write_json(file, {"paths": options.paths, **side_by_side(runs)})
    comparison = json.loads(file.read_text(encoding="utf-8"))  # as others read it: what is not finite is null
    print_side_by_side(comparison)
    if options.html:
        write_text(output / "comparison.html", side_by_side_page(comparison))
    log.info("\nWritten: %s", file)


def read_evaluations(paths: list[str]) -> list[Evaluated]:
    """Each under a name of its own."""
    local = [Path(path) for path in paths if not path.startswith(REMOTE)]
    names = dict(zip(map(str, local), prefixes(local), strict=True))
    if len(local) == len(paths):
        return [read_evaluated(path, names[str(path)] or None) for path in local]
    from potstill.tracking.remote import remote_evaluation  # not imported for local runs: it brings the W&B client

    return [
        remote_evaluation(path.removeprefix(REMOTE)) if path.startswith(REMOTE) else read_evaluated(Path(path))
        for path in paths
    ]


def output_of(options: CompareConfig) -> Path:
    """Raises UserError where it was not given, and is not the one directory that is compared."""
    if options.output is not None:
        return Path(options.output)
    if len(options.paths) == 1 and not options.paths[0].startswith(REMOTE):
        return Path(options.paths[0])
    problem = "has to be given: there is no one directory that the comparison belongs to."
    raise UserError("output", None, problem, "Name a directory for comparison.html: output=DIR")


def read(paths: list[str]) -> list[Result]:
    if not paths:
        raise UserError("paths", paths, "names nothing to compare.", "potstill compare PATH [PATH ...]")
    results = read_results([Path(path) for path in paths if not path.startswith(REMOTE)])
    if remote := [path.removeprefix(REMOTE) for path in paths if path.startswith(REMOTE)]:
        from potstill.tracking.remote import remote_results  # not imported for local runs: it brings the W&B client

        results += [result for place in remote for result in remote_results(place)]
    return results


def _require_plotly(options: CompareConfig) -> None:
    if options.html and importlib.util.find_spec("plotly") is None:
        raise UserError("html", True, "needs plotly, which is not installed.", f"{INSTALL}, or html=false")
