"""report.html in a real browser: no fault of accessibility, no page that scrolls sideways."""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from potstill.reporting.report import page
from tests.tiers import one_and_others

from .evaluated import evaluated

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
REPO = Path(__file__).resolve().parent.parent.parent
PLACES = (os.environ.get("AXE_CORE", ""), "node_modules/axe-core", "/usr/lib/node_modules/axe-core")
AXE = next((file for place in PLACES if place and (file := REPO / place / "axe.min.js").is_file()), None)
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
SCHEMES = {"light": "1", "dark": "0"}
RULER = """
const frame = document.querySelector("iframe");
frame.addEventListener("load", async () => {
  const root = frame.contentDocument.documentElement;
  frame.contentDocument.querySelectorAll("details").forEach((each) => { each.open = true; });
  const ink = getComputedStyle(frame.contentDocument.body).color;
  const found = {scroll: root.scrollWidth, width: root.clientWidth, ink};
  const axe = frame.contentWindow.axe;  // the frame's own: files of no origin send each other no messages
  if (axe) {
    const {violations, passes} = await axe.run();
    Object.assign(found, {violations, passes: passes.length});
  }
  document.body.dataset.found = JSON.stringify(found);
});
"""


def looked_at(text: str, width: int, scheme: str, folder: Path, axe: str = "") -> dict[str, Any]:
    """What the browser finds in the page as a frame of `width` pixels; its own window is no narrower than 500."""
    inner = re.sub(r"<meta http-equiv=.*?>", "", text).replace("</head>", f"<script>{axe}</script></head>")
    frame = f'<iframe title="the report" width="{width}" height="900" srcdoc="{html.escape(inner)}"></iframe>'
    body = f"<main><h1>Frame</h1>{frame}</main><script>{RULER}</script>"
    outer = f'<!doctype html><html lang="en"><head><title>Frame</title></head><body>{body}</body></html>'
    (folder / "frame.html").write_text(outer, encoding="utf-8")
    size = ("--window-size=1400,1000", "--virtual-time-budget=60000", "--dump-dom")
    preferred = f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    own = f"--user-data-dir={folder}/browser"
    command = [str(BROWSER), *OPTIONS, *size, preferred, own, f"file://{folder}/frame.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    found = re.search(r'data-found="(.*?)"', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    return json.loads(html.unescape(found[1]))


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize("place", one_and_others((390, "dark"), (1280, "light")))
def test_the_page_does_not_scroll_sideways_and_follows_the_scheme(place: tuple[int, str], tmp_path: Path) -> None:
    long = "a_domain_with_a_name_that_goes_on_and_on_without_a_space_anywhere"
    found = looked_at(page(evaluated(slices=(long, "home", "travel"), text=long * 3)), *place, tmp_path)
    assert found["scroll"] == found["width"] <= place[0]
    assert (found["ink"] == "rgb(232, 234, 237)") == ("dark" in place)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.skipif(AXE is None, reason="no axe-core: npm install --no-save axe-core")
@pytest.mark.parametrize("place", one_and_others((390, "dark"), (390, "light"), (1280, "dark"), (1280, "light")))
def test_axe_finds_no_fault(place: tuple[int, str], tmp_path: Path) -> None:
    assert AXE is not None
    found = looked_at(page(evaluated()), *place, tmp_path, AXE.read_text(encoding="utf-8"))
    assert found["passes"] > 20
    assert [f"{each['impact']} {each['id']} {each['nodes'][0]['html'][:200]}" for each in found["violations"]] == []
