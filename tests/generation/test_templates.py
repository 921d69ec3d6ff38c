from __future__ import annotations

import pytest

from potstill.config.compose import composed
from potstill.errors import UserError
from potstill.generation.templates import RowTemplate

COLUMNS = ["text", "intent"]
ROW = {"text": "hello", "intent": "greeting"}


@pytest.mark.parametrize("text", ["{{ txt }}", "{{ text }} {% if txt %}more{% endif %}", "{{ txt | upper }}"])
def test_a_name_that_is_no_column_is_refused_before_any_row_and_the_nearest_named(text):
    with pytest.raises(UserError, match="names 'txt', which is no column of the data") as caught:
        RowTemplate("generation.prompt", text, COLUMNS)
    assert (caught.value.key, caught.value.fix) == ("generation.prompt", "Nearest: 'text'.")


def test_a_name_that_is_like_no_column_is_refused_with_all_there_are():
    with pytest.raises(UserError, match=r"There are: intent, labels, text\."):
        RowTemplate("generation.prompt", "{{ question }}", COLUMNS, {"labels": ["a"]})


@pytest.mark.parametrize(
    "text", ["{% set kind = intent %}{{ kind }}", "{% for n in range(2) %}{{ n }}{% endfor %}", "{{ text[:2] }}"]
)
def test_names_that_the_template_makes_or_jinja_has_are_no_columns(text):
    assert RowTemplate("generation.prompt", text, COLUMNS).render(ROW, 0)


def test_labels_are_seen_unless_a_column_has_that_name():
    text = "{{ text }}: {{ labels | join(' or ') }}"
    assert RowTemplate("key", text, COLUMNS, {"labels": ["a", "b"]}).render(ROW, 0) == "hello: a or b"
    own = RowTemplate("key", text, [*COLUMNS, "labels"], {"labels": ["a", "b"]})
    assert own.render({**ROW, "labels": ["of the row"]}, 0) == "hello: of the row"


def test_what_a_row_lacks_inside_a_column_is_refused_with_its_number():
    template = RowTemplate("generation.gold", "{{ text.answer }}", COLUMNS)
    with pytest.raises(UserError, match=r"names what row 7 has not: .* has no attribute 'answer'"):
        template.render(ROW, 7)


def test_what_is_no_template_is_refused():
    with pytest.raises(UserError, match="is no template"):
        RowTemplate("generation.prompt", "{{ text", COLUMNS)


@pytest.mark.parametrize(
    ("value", "fix"),
    [("{{ txt }}", """'generation.prompt="{{ txt }}"'"""), ("Say '{{ txt }}'", "best kept in a file")],
)
def test_a_template_that_the_shell_left_unquoted_is_told_how_to_quote_it(value, fix):
    with pytest.raises(UserError, match="A template is quoted twice") as caught:
        composed("generate", [f"generation.prompt={value}"])
    assert caught.value.key == "generation.prompt"
    assert fix in caught.value.fix
