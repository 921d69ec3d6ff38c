"""What an evaluation leaves for people to read: the page, the model card, the bill of materials."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.reporting.bill_of_materials import bill_of_materials
from potstill.reporting.model_card import model_card
from potstill.reporting.provenance import read_provenance
from potstill.reporting.report import page
from potstill.tracking.manifest import write_text

log = logging.getLogger(__name__)

PAGE, BILL, CARD = "report.html", "ml-bom.json", "README.md"


def write_report(evaluation: Mapping[str, Any], student_run: Path, output: Path) -> Path:
    """Write `output/report.html`, `output/ml-bom.json` and the card beside the student; returns where the page is."""
    provenance = read_provenance(student_run)
    texts = {
        output / PAGE: page(evaluation),
        output / BILL: bill_of_materials(evaluation, provenance),
        provenance.student / CARD: model_card(evaluation, provenance.name),
    }
    for path, text in texts.items():
        write_text(path, text)
    log.info("Report: %s", ", ".join(map(str, texts)))
    return output / PAGE
