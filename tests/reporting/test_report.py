"""report.html: one file that loads nothing, escapes everything, says the verdict first, and can be read by anyone."""

from __future__ import annotations

import copy
from html.parser import HTMLParser

import pytest

from potstill.reporting.report import page, sections

from .evaluated import evaluated

EVIL = "<script>alert('&\"')</script><!-- {{ 7*7 }}"
VOID = {"meta", "line", "circle", "rect", "path", "polyline", "wbr", "br"}


class Page(HTMLParser):
    """Order and nesting of elements, what is loaded, ids and references to them, headings, tables, and all text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"{tag} ends inside of another"

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def of(self, *names: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in names]


def test_hostile_texts_and_labels_are_only_shown() -> None:
    hostile = evaluated(slices=(EVIL, "home", "b"), labels=(EVIL, EVIL + "2"), text=EVIL)
    hostile["verdict"]["because"] = [EVIL]
    hostile["gates"][0] |= {"says": EVIL, "measure": EVIL}
    hostile["models"][EVIL] = copy.deepcopy(hostile["models"]["baseline"])
    hostile["provenance"]["rerun"] = EVIL
    for model in (hostile["models"], hostile["measured"]["models"]):
        model.setdefault(EVIL, {})
    text = page(hostile)
    found = Page(text)
    assert EVIL not in text
    assert not found.of("script")
    assert found.open == []
    assert found.text.count(EVIL) >= 12, "shown as it is: slice, labels, example, gate, reason, model, command"


def test_nothing_is_loaded_and_nothing_runs() -> None:
    text = page(evaluated())
    names = ("src", "href", "data", "srcset")
    loads = [value for _, given in Page(text).tags for name, value in given.items() if name in names]
    assert all((value or "").startswith("#") for value in loads)
    assert "http" not in text.replace("http-equiv", "")
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_the_verdict_comes_before_everything_else() -> None:
    found = Page(page(evaluated())).text
    places = [
        found.index(part)
        for part in ("Do not ship", "advantage of the student", "accuracy of the student", "Gates", "Slices")
    ]
    assert places == sorted(places)
    assert sections(evaluated())[0].key == "gates"


def test_failed_gates_are_told_by_words_and_not_by_colour_alone() -> None:
    found = Page(page(evaluated())).text
    assert min(found.index(words) for words in ("fails", "not enough evidence", "passes")) > 0


def test_the_worst_slice_stands_first_in_plot_and_table() -> None:
    text = page(evaluated())
    for part in ('id="slices"', 'id="retention"'):
        section = text.partition(part)[2].partition("</section>")[0]
        assert section.index("out_<wbr>of_<wbr>scope") < section.index("home")


def test_a_reader_of_the_screen_finds_headings_captions_scopes_and_words_for_every_plot() -> None:
    found = Page(page(evaluated()))
    assert len(found.of("h1")) == 1
    assert [attributes["lang"] for attributes in found.of("html")] == ["en"]
    assert len(found.of("caption")) == len(found.of("table")) > 10
    assert all(attributes.get("scope") in ("col", "row") for attributes in found.of("th"))
    images = [each for _, each in found.tags if each.get("role") == "img"]
    assert len(images) == 4
    assert all(len(each["aria-label"] or "") > 20 for each in images)
    ids = [each["id"] for _, each in found.tags if "id" in each]
    assert len(ids) == len(set(ids))
    wanted = {each["aria-labelledby"] for _, each in found.tags if "aria-labelledby" in each}
    wanted |= {(each["href"] or "")[1:] for each in found.of("a")}
    assert wanted <= set(ids)


def test_what_was_not_measured_is_left_out_and_not_invented() -> None:
    bare = evaluated()
    bare |= dict.fromkeys(("found_slices", "seeds", "contamination", "coverage", "teacher_quality"))
    bare |= {"confusions": [], "examples": {}, "gates": [], "differences": {}, "bar": {"name": "none"}}
    bare["verdict"] = {"outcome": None, "exit_code": 0, "because": [], "against_baseline": None}
    bare["models"] = {"student": bare["models"]["student"]}
    for group in (bare["models"]["student"]["overall"], *bare["models"]["student"]["slices"].values()):
        group |= dict.fromkeys(("accuracy", "against_teacher", "calibration", "selective")) | {"interval": [None, None]}
    bare["measured"] |= {"models": {}, "break_even": None, "when_not_to_distil": []}
    assert [section.key for section in sections(bare)] == ["gates", "overall", "slices", "cost", "provenance", "rerun"]
    found = Page(page(bare)).text
    assert "No verdict" in found
    assert "nan" not in found.lower().replace("provenance", "")
    assert "None" not in found


def test_slices_that_are_too_small_say_so() -> None:
    small = evaluated()
    for model in small["models"].values():
        model["slices"]["domain=home"]["is_too_small"] = True
    assert "n 450, too small" not in Page(page(evaluated())).text
    assert "n 450, too small" in Page(page(small)).text


def test_the_same_evaluation_gives_the_same_page() -> None:
    assert page(evaluated()) == page(evaluated())


@pytest.mark.parametrize(("metric", "ticks"), [("perplexity", "20"), ("accuracy", "80 %")])
def test_a_metric_without_bounds_is_drawn_on_its_own_scale(metric: str, ticks: str) -> None:
    evaluation = evaluated()
    if metric == "perplexity":
        evaluation |= {"metric": metric, "higher_is_better": False, "task": "causal_lm"}
        for model in evaluation["models"].values():
            for group in (model["overall"], *model["slices"].values()):
                group |= {metric: 30 * group.pop("accuracy"), "interval": [15.0, 35.0]}
    section = page(evaluation).partition('id="slices"')[2]
    assert f">{ticks}</text>" in section.replace("\N{NO-BREAK SPACE}", " ").replace("&nbsp;", " ")
