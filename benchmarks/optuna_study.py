"""Does TPE with median pruning find better students than random search in as many trials, and what does pruning save?

    potstill train experiment=digits_teacher run.dir=runs/optuna_study/teacher logger=none
    python benchmarks/optuna_study.py --teacher runs/optuna_study/teacher/student

Each repeat is two studies of the digits, `tpe` and `random`, of the same search space, number of trials and seed, run
by the command line; by that seed, the ten trials that TPE draws at random are those of `random`. The objective is the
validation loss of the weights kept, the best on validation. A study that was interrupted goes on, and a repeat that is
in the results is not run again. Steps and seconds saved are of `tpe`: optimizer steps that its pruned trials did not
take, times what a step of its finished ones took, validation included.
"""

# R repeats

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna

from hydra_plugins.potstill_optuna import load_study
from potstill.evaluation.statistics import paired_t_interval
from potstill.tracking.manifest import git_state, write_json

MAX_STEPS, VALIDATE_EVERY = 160, 32  # optimizer steps
TRIAL = (
    *(
        "experiment=digits",
        "teacher.remember=true",
        "logger=none",
        f"optim.max_steps={MAX_STEPS}",
        f"validate_every={VALIDATE_EVERY}",
    ),
    *("callbacks.best.monitor=val/loss", "~callbacks.last", "~callbacks.throughput", "~callbacks.progress"),
)
SPACE = (
    "optim.optimizer.lr=tag(log,interval(1.0e-4,1.0e-1))",
    "optim.warmup_fraction=interval(0.0,0.5)",
    "loss.term.kd.temperature=tag(log,interval(1.0,16.0))",
    "loss.term.kd.weight=tag(log,interval(0.1,10.0))",
    "loss.term.ce.label_smoothing=interval(0.0,0.3)",
)
# Optuna's defaults, but for the pruner's first look: at the first validation the longest warm-ups are not half over.
METHODS = {
    "tpe": ("sampler=tpe", "pruner=median", f"+pruner_options.n_warmup_steps={2 * VALIDATE_EVERY}"),
    "random": ("sampler=random", "pruner=none"),
}

Repeat = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    results = read_results(options.out, options.trials)
    for seed in range(options.repeats):
        if seed not in [repeat["seed"] for repeat in results["repeats"]]:
            methods = list(METHODS) if seed % 2 == 0 else list(METHODS)[::-1]  # so that both meet the same machine
            studies = {method: run_study(method, seed, options) for method in methods}
            results["repeats"].append({"seed": seed, **{method: facts_of(study) for method, study in studies.items()}})
            write_json(options.out, results)
    print("\n".join(markdown(results)))


def run_study(method: str, seed: int, options: argparse.Namespace) -> optuna.Study:
    """The study in its directory, begun or gone on with."""
    directory = (options.runs / f"{method}_{seed}").absolute()
    begin = ["train", "-m", *command(method, seed, options.trials, options.teacher), f"run.dir={directory}"]
    resume = ["sweep", "resume", str(directory)]
    print(f"{method}, seed {seed}: {directory}", file=sys.stderr)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with (directory.parent / f"{directory.name}.log").open("a") as log:
        subprocess.run(
            [sys.executable, "-m", "potstill", *(resume if (directory / "sweep.json").exists() else begin)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            check=False,  # a trial may fail; what a study holds is looked at below
        )
    study = load_study(str(directory / "study.journal"), directory.name)
    num_done = sum(trial.state.is_finished() for trial in study.get_trials(deepcopy=False))
    if num_done != options.trials:
        raise SystemExit(f"{num_done} of {options.trials} trials are done, see {directory}.log")
    return study


def command(method: str, seed: int, num_trials: int, teacher: str) -> list[str]:
    """Overrides of one study."""
    sweeper = [f"hydra.sweeper.{text}" if text[0] != "+" else f"+hydra.sweeper.{text[1:]}" for text in METHODS[method]]
    counts = [f"hydra.sweeper.num_trials={num_trials}", f"hydra.sweeper.seed={seed}", f"seed={seed}"]
    return ["hydra/sweeper=optuna", *sweeper, *counts, *TRIAL, f"teacher.path={teacher}", *SPACE]


def facts_of(study: optuna.Study) -> dict[str, Any]:
    """What the tables need of one study."""
    trials = study.get_trials(deepcopy=False)
    complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    pruned = [trial for trial in trials if trial.state == optuna.trial.TrialState.PRUNED]
    step_seconds = statistics.median(t.user_attrs["train/seconds"] / MAX_STEPS for t in finished(complete))
    saved_steps = sum(MAX_STEPS - (trial.last_step or 0) for trial in pruned)
    values = [trial.value if trial in complete else None for trial in trials]
    best = min(complete, key=lambda trial: trial.value)  # type: ignore[arg-type, return-value]
    return {
        "best": best.value,
        "best_params": best.params,
        "values": values,
        "num_complete": len(complete),
        "num_pruned": len(pruned),
        "num_failed": len(trials) - len(complete) - len(pruned),
        "seconds": sum((t.datetime_complete - t.datetime_start).total_seconds() for t in trials),  # type: ignore[operator]
        "step_seconds": step_seconds,
        "saved_steps": saved_steps,
        "saved_seconds": saved_steps * step_seconds,
    }


def finished(trials: Sequence[optuna.trial.FrozenTrial]) -> list[optuna.trial.FrozenTrial]:
    """Those that took all their steps: a trial that diverged is complete as well, with a value that no other has."""
    return [trial for trial in trials if trial.user_attrs["status"] == "finished"]


def best_after(values: Sequence[float | None], num_trials: int) -> float:
    """The best value among the first trials; infinite where none of them is complete."""
    return min((value for value in values[:num_trials] if value is not None), default=float("inf"))


def read_results(path: Path, num_trials: int) -> dict[str, Any]:
    """The results so far, or what they begin with. Raises SystemExit where they are of another number of trials."""
    now = {"trials": num_trials, "max_steps": MAX_STEPS, "space": list(SPACE), "methods": METHODS}
    now = json.loads(json.dumps(now))
    if not path.exists():
        machine = {"cpu": platform.machine(), "num_cpus": os.cpu_count(), "optuna": optuna.__version__}
        return {**now, "machine": machine, "git": git_state(Path(__file__).parent), "repeats": []}
    results = json.loads(path.read_text())
    if changed := [name for name in now if results[name] != now[name]]:
        raise SystemExit(f"{path} is of other {', '.join(changed)}: choose another --out and --runs")
    return results


def markdown(results: Mapping[str, Any]) -> Iterator[str]:
    """Lines of the tables: one row a repeat, then what holds over all of them."""
    repeats: list[Repeat] = results["repeats"]
    yield f"Best validation loss after {results['trials']} trials of {results['max_steps']} optimizer steps:"
    yield ""
    yield "| seed | TPE, pruned | random | difference | trials pruned | steps saved | time saved |"
    yield "|---:|---:|---:|---:|---:|---:|---:|"
    for repeat in repeats:
        tpe, random = repeat["tpe"], repeat["random"]
        share = tpe["saved_steps"] / (results["trials"] * results["max_steps"])
        yield (
            f"| {repeat['seed']} | {tpe['best']:.4f} | {random['best']:.4f} | {tpe['best'] - random['best']:+.4f} "
            f"| {tpe['num_pruned']} | {tpe['saved_steps']} ({share:.0%}) | {tpe['saved_seconds']:.0f} s |"
        )
    yield ""
    yield "| after | TPE - random, mean and 95 % t interval over the repeats |"
    yield "|---:|---:|"
    for num_trials in sorted({max(1, results["trials"] // 4), max(1, results["trials"] // 2), results["trials"]}):
        best_R = {
            method: [best_after(repeat[method]["values"], num_trials) for repeat in repeats] for method in METHODS
        }
        interval = paired_t_interval(best_R["tpe"], best_R["random"])
        yield f"| {num_trials} trials | {interval.value:+.4f} [{interval.low:+.4f}, {interval.high:+.4f}] |"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--teacher", required=True, help="directory of a student trained by experiment=digits_teacher")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--trials", type=int, default=40, help="of each study")
    parser.add_argument("--runs", type=Path, default=Path("runs/optuna_study"), help="where the studies are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "optuna_study.json")
    return parser


if __name__ == "__main__":
    main()
