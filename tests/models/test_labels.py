"""Labels by name: columns of a model that has them in another order, fewer, or more."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig

from potstill.errors import UserError
from potstill.models.labels import label_order, model_labels, reorder_head, set_labels

from .tiny import text_batch, tiny_model

KEY = "teacher.path"


def config_with(*labels: str) -> BertConfig:
    config = BertConfig()
    set_labels(config, labels)
    return config


def test_columns_are_found_by_name_not_by_number():
    assert label_order(config_with("cat", "dog", "eel"), ["eel", "cat", "dog"], KEY) == [2, 0, 1]


@pytest.mark.parametrize("labels", [["cat", "dog"], None], ids=["same order", "a language model"])
def test_nothing_is_reordered_where_nothing_differs(labels: list[str] | None):
    assert label_order(config_with("cat", "dog"), labels, KEY) is None


def test_a_model_without_label_names_is_taken_as_it_is():
    assert label_order(config_with("LABEL_0", "LABEL_1", "LABEL_2"), ["eel", "cat", "dog"], KEY) is None


def test_a_model_without_label_names_and_of_another_size_is_refused():
    with pytest.raises(UserError, match="does not know these labels"):
        label_order(config_with("LABEL_0", "LABEL_1"), ["eel", "cat", "dog"], KEY)


def test_a_label_unknown_to_the_model_is_named():
    with pytest.raises(UserError, match=r"teacher\.path=.*: fox\. It knows cat, dog\.") as caught:
        label_order(config_with("cat", "dog"), ["cat", "dog", "fox"], KEY)
    assert caught.value.key == KEY


def test_a_label_the_data_lacks_comes_with_the_override_that_adds_it():
    with pytest.raises(UserError, match=r"data\.label_names=\[cat, dog, eel\]"):
        label_order(config_with("cat", "dog", "eel"), ["cat", "dog"], KEY)


def test_an_error_over_many_labels_fits_on_a_screen():
    labels = [f"label number {number}" for number in range(500)]
    with pytest.raises(UserError, match="and 487 more") as caught:
        label_order(config_with(*labels), labels[:1], KEY)
    assert len(str(caught.value)) < 1500


def test_a_reordered_head_gives_reordered_logits():
    model = tiny_model("roberta", "text_classification", id2label=dict(enumerate("abc")))
    batch = text_batch([[5, 6, 7], [8, 9]], [0, 1])
    with torch.no_grad():
        before = model(**batch.inputs).logits
        reorder_head(model, [2, 0, 1])
        torch.testing.assert_close(model(**batch.inputs).logits, before[:, [2, 0, 1]])


def test_labels_that_are_set_can_be_read():
    assert model_labels(config_with("9", "0")) == ["9", "0"]
