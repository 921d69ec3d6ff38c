"""kill -9 at random moments, resume, compare: does an interrupted run end with the weights of the uninterrupted one?

python benchmarks/interruptions.py --kills 10 --out benchmarks/results/interruptions.json

For every strategy one run is left alone. Then, for every kill, the same run is started, killed at a random moment of
its training (every step saves, so that many kills hit a save), resumed by `potstill train --resume`, and compared:
every tensor of the last checkpoint, optimizer included, and of the exported student, bit for bit.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

STRATEGIES = {
    "one process": ["hardware=cpu"],
    "ddp, 2 processes": ["hardware=cpu", "hardware.devices=2", "hardware.strategy=ddp"],
    "fsdp2, 2 processes": ["hardware=cpu_fsdp2"],
}
NUM_STEPS = 120
RUN = [
    *("train", "student=vit_digits_tiny", "logger=csv", "log_every=1", "validate_every=25"),
    *("student.config.hidden_dropout_prob=0.1", "callbacks.last.every_steps=1"),  # dropout: random numbers count
    *("optim.max_epochs=null", f"optim.max_steps={NUM_STEPS}"),
]
TIMEOUT_S = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="for each strategy")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("runs/interruptions"))
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    moments = random.Random(options.seed)
    results = [measure(name, options.kills, moments, options.folder) for name in STRATEGIES]
    report = {"commit": commit(), "seed": options.seed, "num_steps": NUM_STEPS, "strategies": results}
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")
    print("| | kills | torn checkpoints | resumes | differing weights | killed at step |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    for result in results:
        steps = ", ".join(map(str, sorted(result["killed_at"])))
        numbers = [result[key] for key in ("kills", "torn", "resumes", "differing")]
        print(f"| {result['strategy']} | {' | '.join(map(str, numbers))} | {steps} |")
    if any(result["torn"] or result["differing"] or result["resumes"] < result["kills"] for result in results):
        sys.exit(1)


def measure(name: str, num_kills: int, moments: random.Random, folder: Path) -> dict[str, Any]:
    """One strategy: how many of its kills left a torn checkpoint, could not be resumed, or ended elsewhere."""
    strategy = STRATEGIES[name]
    whole = folder / name.replace(" ", "-").replace(",", "") / "whole"
    start(strategy, whole).wait(TIMEOUT_S)
    expected, seconds = state_of(whole), training_seconds(whole)
    result: dict[str, Any] = {"strategy": name, "kills": 0, "torn": 0, "resumes": 0, "differing": 0, "killed_at": []}
    while result["kills"] < num_kills:
        run = whole.with_name(f"killed_{result['kills']}")
        if not kill_while_training(start(strategy, run), run, moments.uniform(0.0, seconds), moments):
            shutil.rmtree(run)  # it was done before the moment came
            continue
        result["kills"] += 1
        step = readable_step(run)
        result["torn"] += step is None
        result["killed_at"].append(step)
        resumed = potstill("train", "--resume", str(run))
        code = resumed.wait(TIMEOUT_S)
        result["resumes"] += code == 0
        result["differing"] += code != 0 or not same(expected, state_of(run))
        print(f"{name}: kill {result['kills']} after step {step}", file=sys.stderr)
    return result


def start(strategy: list[str], run: Path) -> subprocess.Popen[bytes]:
    return potstill(*RUN, *strategy, f"run.dir={run}")


def potstill(*arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "disabled"}
    return subprocess.Popen([sys.executable, "-m", "potstill", *arguments], env=environment, stdout=subprocess.DEVNULL)


def kill_while_training(process: subprocess.Popen[bytes], run: Path, delay_s: float, moments: random.Random) -> bool:
    """kill -9 the command or one of its ranks, `delay_s` after its first checkpoint; False where it ended before."""
    checkpoint = run / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + TIMEOUT_S
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay_s)
    if process.poll() is not None or (run / "student").exists():
        process.wait()
        return False
    victim = moments.choice([process.pid, *children(process.pid)])
    os.kill(victim, signal.SIGKILL)
    process.wait()
    return True


def children(pid: int) -> list[int]:
    """Processes started by `pid`: the ranks, where there are several."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def training_seconds(run: Path) -> float:
    return json.loads((run / "manifest.json").read_text())["training"]["seconds"]


def readable_step(run: Path) -> int | None:
    """The step of the checkpoint that the kill left; None where it cannot be read."""
    try:
        return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    except (OSError, RuntimeError, EOFError):
        return None


def state_of(run: Path) -> dict[str, Any]:
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    kept = {key: checkpoint[key] for key in ("global_step", "state_dict", "optimizer_states", "lr_schedulers")}
    return {**kept, "student": load_file(run / "student" / "model.safetensors")}


def same(one: Any, other: Any) -> bool:
    """Equal to the last bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def commit() -> str:
    here = Path(__file__).parent
    return subprocess.run(
        ["git", "-C", here, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()


if __name__ == "__main__":
    main()
