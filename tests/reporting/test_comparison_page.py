"""comparison.html: one file that loads nothing, escapes everything, and draws its plots in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from potstill.reporting.comparison_page import page
from potstill.sweeps.comparison import compare
from potstill.sweeps.results import Result
from tests.sweeps.runs import result

EVIL = "<script>alert(1)</script>"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Page(HTMLParser):
    """Sources, references, the text of tables, and tags that are left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.cells: list[str] = []
        self.num_scripts = 0
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        self.num_scripts += tag == "script"
        self._in_cell = tag in ("td", "th", "span", "code") or self._in_cell

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell and data.strip():
            self.cells.append(data.strip())


def runs(num_seeds: int = 2) -> list[Result]:
    found = []
    for number in range(6):
        keys = {"lr": 10.0**-number, "path": EVIL if number % 2 else "/teachers/large", "cost": 1000 * number + 1}
        for seed in range(num_seeds):
            value = 0.5 + number / 20 + seed / 100 * (1 + number % 3)
            found.append(result(f"{number}-{seed}", value, seed=seed, **keys))
    failed = Result(f"bad{EVIL}", "x", "failed", f"reason {EVIL}", [f"optim.optimizer.path={EVIL}"])
    return [*found, failed]


@pytest.fixture(scope="module")
def written() -> str:
    return page(compare(runs()), ["runs/sweep", EVIL])


@pytest.mark.slow
def test_nothing_is_loaded_from_anywhere(written: str) -> None:
    assert Page(written).loads == []
    own = re.sub(r"<script.*?</script>", "", written, flags=re.DOTALL)
    assert "http://" not in own
    assert "https://" not in own
    assert "default-src 'none'" in own, "what plotly.js might ask for, the browser refuses"


@pytest.mark.slow
def test_an_override_that_is_a_script_is_only_shown(written: str) -> None:
    assert EVIL not in written
    plain = page(compare([*runs(), result("one more", 0.1)]), ["x"])
    assert Page(written).num_scripts == Page(plain).num_scripts
    cells = Page(written).cells
    assert EVIL in cells
    assert f"reason {EVIL}" in cells
    assert f"optim.optimizer.path={EVIL}" in cells


@pytest.mark.slow
def test_the_tables_can_be_read_without_javascript(written: str) -> None:
    cells = Page(written).cells
    assert {"failed", "0-0, 0-1", "76.5 \N{PLUS-MINUS SIGN} 2.1 %", "cost/parameters"} <= set(cells)
    assert "<noscript>" in written


@pytest.mark.slow
def test_plotly_is_there_once(written: str) -> None:
    assert written.count("plotly.js v") == 1


def test_a_page_without_anything_to_draw_has_no_plots_and_no_plotly() -> None:
    text = page(compare([result("0", 0.5), Result("1", "1", "failed", "no space left")]), ["x"])
    assert len(text) < 20_000
    assert "no space left" in text


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
def test_a_browser_draws_every_plot(written: str, tmp_path: Path) -> None:
    file = tmp_path / "comparison.html"
    file.write_text(written, encoding="utf-8")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--enable-logging=stderr")
    command = [str(BROWSER), *options, f"--user-data-dir={tmp_path}/browser", "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    for name in ("leads", "pareto", "importance", "slices", "parallel"):
        part = done.stdout.partition(f'id="{name}"')[2].partition("</section>")[0]
        assert "main-svg" in part, f"{name} was not drawn"
    assert "CONSOLE" not in done.stderr, "an error of a script, or something that the page wanted to load"
