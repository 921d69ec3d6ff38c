"""`report.html`: an evaluation as one page that a release board can read, without network and without scripts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from potstill.reporting import audit_sections, licence_section, quality_sections, record_sections, trust_sections
from potstill.reporting.markup import breakable
from potstill.reporting.reading import OUTCOMES, Evaluation, shown
from potstill.reporting.sections import Section
from potstill.reporting.verdict_sections import Figure, Headline, figures, gate_section, headline

# in the order of the page
MAKERS: tuple[Callable[[Evaluation], Section | None], ...] = (
    gate_section,
    quality_sections.overall_section,
    quality_sections.slice_section,
    quality_sections.retention_section,
    trust_sections.errors_section,
    trust_sections.calibration_section,
    trust_sections.confusion_section,
    quality_sections.seed_section,
    audit_sections.found_section,
    audit_sections.coverage_section,
    audit_sections.contamination_section,
    audit_sections.teacher_section,
    record_sections.example_section,
    record_sections.cost_section,
    licence_section.licence_section,
    record_sections.provenance_section,
    record_sections.rerun_section,
)


def sections(evaluation: Evaluation) -> list[Section]:
    """Those for which the evaluation has something to say."""
    return [section for make in MAKERS if (section := make(evaluation)) is not None]


def page(evaluation: Evaluation) -> str:
    """The whole page. The same evaluation gives the same bytes."""
    above = {"headline": headline(evaluation), "figures": figures(evaluation)}
    return render(title(evaluation), about(evaluation), sections(evaluation), **above)


def render(
    title: str,
    about: str,
    sections: Sequence[Section],
    *,
    headline: Headline | None = None,
    figures: Sequence[Figure] = (),
    made_by: str = "potstill evaluate",
    data: str = "evaluation.json",
) -> str:
    """One page, without network and without scripts. data: the file that has all of its numbers."""
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["zip"] = lambda first, second: zip(first, second, strict=True)
    environment.filters["breakable"] = breakable
    return environment.get_template("report.html.jinja").render(
        title=title,
        about=about,
        headline=headline,
        figures=figures,
        sections=sections,
        made_by=made_by,
        data=data,
        outcomes=OUTCOMES,
        style=(Path(__file__).parent / "report.css").read_text(encoding="utf-8"),
    )


def title(evaluation: Evaluation) -> str:
    """After the experiment and the directory of the run that the student comes from."""
    run = evaluation["provenance"]["runs"].get(shown(evaluation)) or {}
    if not run.get("path"):
        return f"Evaluation of {evaluation['task'].replace('_', ' ')}"
    return f"Evaluation of {run.get('experiment') or 'a run'}: {'/'.join(Path(run['path']).parts[-2:])}"


def about(evaluation: Evaluation) -> str:
    data = evaluation["data"]
    models = ", ".join(evaluation["models"])
    task = evaluation["task"].replace("_", " ").capitalize()
    return f"{task}, {data['n']:,} items of the {data['split']} split: {models}"
