"""Where a generation stands: one line while there is a terminal, JSON lines where there is none, a file for others."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from potstill.errors import UserError
from potstill.generation.budget import Budget
from potstill.generation.limiter import Limiter
from potstill.tracking.manifest import write_json

FILE = "status.json"
WINDOW_S = 60.0  # rates are of the last so many seconds


@dataclass
class Progress:
    """total: distinct requests. cached: answered before this start."""

    directory: Path
    budget: Budget
    limiter: Limiter
    every_s: float

    total: int = 0
    cached: int = 0
    done: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    _finished: deque[tuple[float, int]] = field(default_factory=deque)
    _shown_at: float = 0.0
    _started_at: float = field(default_factory=time.monotonic)
    _live: Live | None = None

    def begin(self) -> None:
        console = Console(stderr=True)
        if console.is_terminal:
            self._live = Live(self.line(), console=console, transient=True, auto_refresh=False)
            self._live.start()

    def end(self, state: str) -> None:
        if self._live:
            self._live.stop()
        self._tell(state)

    def answered(self, num_tokens: int) -> None:
        self.done += 1
        self._finished.append((time.monotonic(), num_tokens))
        self.tick()

    def failure(self, kind: str) -> None:
        self.failed[kind] += 1
        self.tick()

    def tick(self) -> None:
        now = time.monotonic()
        if self._live:
            self._live.update(self.line(), refresh=now - self._shown_at >= 0.2)
        if now - self._shown_at >= (0.2 if self._live else self.every_s):
            self._shown_at = now
            self._tell("running")

    def facts(self, state: str = "running") -> dict[str, Any]:
        requests_per_s, tokens_per_s = self._rates()
        spent, left = (
            self.budget.spent,
            self.total - self.cached - self.done - self.failed["never"] - self.failed["gone"],
        )
        per_request = spent.money / max(1, self.done + self.cached)
        return {
            "state": state,
            "total": self.total,
            "cached": self.cached,
            "done": self.done,
            "failed": dict(self.failed),
            "requests_per_s": round(requests_per_s, 3),
            "tokens_per_s": round(tokens_per_s, 3),
            "concurrency": int(self.limiter.limit),
            "in_flight": self.limiter.in_flight,
            "spent": {"calls": spent.calls, "tokens": spent.tokens, "money": round(spent.money, 6)},
            "projected_money": round(spent.money + left * per_request, 6),
            "caps": {name: getattr(self.budget, name) for name in ("calls", "tokens", "money")},
            "eta_s": round(left / requests_per_s, 1) if requests_per_s else None,
            "at": time.time(),
        }

    def line(self) -> str:
        facts = self.facts()
        failed = "".join(f" {kind} {count}" for kind, count in self.failed.items())
        cap = "" if self.budget.money is None else f" of {self.budget.money:g}"
        eta = "?" if facts["eta_s"] is None else f"{facts['eta_s']:.0f} s"
        return (
            f"{self.cached + self.done}/{self.total} done ({self.cached} cached){failed}  "
            f"{facts['requests_per_s']:.1f} req/s {facts['tokens_per_s']:.0f} tok/s  limit {facts['concurrency']}  "
            f"spent {facts['spent']['money']:.4g} -> {facts['projected_money']:.4g}{cap}  ETA {eta}"
        )

    def _rates(self) -> tuple[float, float]:
        now = time.monotonic()
        while self._finished and now - self._finished[0][0] > WINDOW_S:
            self._finished.popleft()
        over = max(min(WINDOW_S, now - self._started_at), 1e-3)
        return len(self._finished) / over, sum(tokens for _, tokens in self._finished) / over

    def _tell(self, state: str) -> None:
        facts = self.facts(state)
        write_json(self.directory / FILE, facts)
        if not self._live:
            print(json.dumps(facts), file=sys.stderr, flush=True)


def status_line(directory: Path, *, is_running: bool) -> str:
    """What `status.json` of a ledger's directory says. Raises UserError where nothing was generated yet."""
    file = directory / FILE
    if not file.is_file():
        problem = "holds no status.json: nothing has been generated with this ledger."
        raise UserError(
            "ledger.dir", str(directory), problem, "Name the ledger: potstill generate --status ledger.dir=DIR"
        )
    facts = json.loads(file.read_text(encoding="utf-8"))
    if facts["state"] == "running" and not is_running:
        facts["state"] = "killed"  # it did not get to say how it ended
    return json.dumps(facts, indent=2)
