"""A generation that is told to end, as a user or a scheduler does."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.generation.servers import endpoint, overrides, prompts_file

ROWS = [f"row {number}" for number in range(60)]


@pytest.mark.slow
@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupt_closes_the_ledger_shows_no_traceback_and_can_be_gone_on_with(number, tmp_path: Path, potstill):
    handler = signal.getsignal(signal.SIGTERM)
    with endpoint(tmp_path, delay_s=0.05) as server:
        given = overrides(server.url, prompts_file(tmp_path, ROWS), limits__maximum=4)

        def interrupt() -> None:
            while len(server.asked()) < 10:
                time.sleep(0.01)
            os.kill(os.getpid(), number)

        interrupting = threading.Thread(target=interrupt)
        interrupting.start()
        outcome = potstill("generate", *given)
        interrupting.join()
        assert outcome.code == 130
        assert "Traceback" not in outcome.err
        assert outcome.err.endswith("\nInterrupted.\n")
        assert json.loads(Path("out/manifest.json").read_text())["status"] == "interrupted"
        assert not list(Path("runs/generate/ledger").glob("*-wal")), "the ledger was not closed"
        asked = len(server.asked())
        assert potstill("generate", *given).code == 0
        assert 0 <= len(server.asked()) - len(ROWS) <= 4, "no more than were in flight"
        assert asked < len(ROWS)
    assert signal.getsignal(signal.SIGTERM) == handler
