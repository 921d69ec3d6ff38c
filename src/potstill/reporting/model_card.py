"""`README.md` beside the student: what it is, how good it is and where it came from, with the hub's metadata."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from potstill.reporting.markdown import escaped, section_markdown
from potstill.reporting.reading import METRIC_NAMES, Evaluation, metric_name, shown
from potstill.reporting.report import about, sections
from potstill.reporting.verdict_sections import headline

# task -> (the hub's name of it, the library that loads the student)
TASKS = {
    "text_classification": ("text-classification", "transformers"),
    "image_classification": ("image-classification", "transformers"),
    "causal_lm": ("text-generation", "transformers"),
    "embedding": ("sentence-similarity", "sentence-transformers"),
}
SPLIT_TYPE = "local"  # of the data: no set of the hub is meant


def model_card(evaluation: Evaluation, name: str, licence: str | None = None) -> str:
    """The card's text. name: the model's. licence: where one is on record.

    Sections that quote the test set are left out: a card travels with the model, and the test set should not.
    """
    said = headline(evaluation)
    public = [section_markdown(section) for section in sections(evaluation) if not section.is_private]
    reasons = [f"- {escaped(reason)}" for reason in said.reasons]
    opening = [f"# {escaped(name)}", escaped(f"A student, distilled and evaluated by potstill. {about(evaluation)}.")]
    verdict = [f"**Verdict: {said.title.lower()}.** {said.explanation}", *(["\n".join(reasons)] if reasons else [])]
    ending = "All of it, with plots: report.html, where evaluation.json lies. Intervals are 95 % intervals."
    body = "\n\n".join([*opening, *verdict, *public, ending])
    metadata = _metadata(evaluation, name, licence).to_yaml(line_break="\n")
    return str(ModelCard(f"---\n{metadata}\n---\n\n{body}\n"))


def _metadata(evaluation: Evaluation, name: str, licence: str | None) -> ModelCardData:
    """Raises ValueError where the hub would not take it."""
    task, library = TASKS[evaluation["task"]]
    results = list(_results(evaluation, task))
    return ModelCardData(
        library_name=library,
        pipeline_tag=task,
        license=licence,
        tags=["knowledge-distillation", "potstill"],
        metrics=sorted({result.metric_type for result in results}),
        model_name=name,
        eval_results=results,
    )


def _results(evaluation: Evaluation, task: str) -> Iterator[EvalResult]:
    """Every metric overall, and the main one of every slice."""
    report, metric, data = evaluation["models"][shown(evaluation)], evaluation["metric"], evaluation["data"]
    dataset = {"dataset_type": SPLIT_TYPE, "dataset_name": _dataset(evaluation), "dataset_split": data["split"]}
    for key in METRIC_NAMES:
        if report["overall"].get(key) is not None:
            value = {"metric_type": key, "metric_value": report["overall"][key], "metric_name": metric_name(key)}
            yield EvalResult(task, **dataset, **value)
    for name, group in report["slices"].items():
        if group.get(metric) is not None:
            yield EvalResult(task, metric_type=metric, metric_value=group[metric], dataset_config=name, **dataset)


def _dataset(evaluation: Evaluation) -> str:
    """After the folder it was read from, or what makes it."""
    source = ((evaluation["provenance"].get("config") or {}).get("data") or {}).get("source") or {}
    place = source.get("root") or source.get("path") or str(source.get("_target_", "data")).rpartition(".")[2]
    return Path(place).name
