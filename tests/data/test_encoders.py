from __future__ import annotations

import numpy as np
import pytest
import torch
from datasets import Dataset

from potstill.data.batch import IGNORE
from potstill.data.encoders import ImageEncoder, TextEncoder, pixels
from potstill.errors import UserError
from tests.data.examples import tokenizer


def encode(encoder: TextEncoder, **columns: list) -> list[dict]:
    table = Dataset.from_dict({"label": [0] * len(columns["text"])} | columns)
    return list(encoder.encode(table))  # type: ignore[arg-type]


def test_text_is_what_the_tokenizer_makes_of_it_alone() -> None:
    made = tokenizer()
    rows = encode(TextEncoder(made, 16), text=["pays my rent", "train"])
    batch = TextEncoder(made, 16).collate(rows)
    for row, text in enumerate(["pays my rent", "train"]):
        attended = batch.inputs["attention_mask"][row].bool()
        assert batch.inputs["input_ids"][row][attended].tolist() == made(text)["input_ids"]


def test_text_is_cut_and_its_length_is_told() -> None:
    rows = encode(TextEncoder(tokenizer(), 5), text=["where does the train stop before noon", "rent"])
    assert [row["length"] for row in rows] == [len(row["input_ids"]) for row in rows]
    assert rows[0]["length"] == 5 > rows[1]["length"]


def test_a_pair_is_encoded_as_a_pair() -> None:
    made = tokenizer()
    (row,) = encode(TextEncoder(made, 32), text=["rent"], text_pair=["train"])
    assert row["input_ids"] == made("rent", "train")["input_ids"]


def test_token_types_reach_a_model_that_reads_them() -> None:
    made = tokenizer(model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    encoder = TextEncoder(made, 32)
    rows = encode(encoder, text=["rent", "train stop"], text_pair=["train", "noon"])
    batch = encoder.collate(rows)
    assert batch.inputs["token_type_ids"].shape == batch.inputs["input_ids"].shape
    assert batch.inputs["token_type_ids"][1].max() == 1


def test_a_key_is_of_the_ids_and_not_of_the_company_they_keep() -> None:
    """A signal is looked up by it, in whatever batch and behind whatever padding the example stands."""
    encoder = TextEncoder(tokenizer(), 32)
    short, long, same = encode(encoder, text=["rent", "where does the train stop", "rent"], label=[0, 1, 2])
    assert encoder.collate([short]).keys[0] == encoder.collate([long, short]).keys[1] == encoder.collate([same]).keys[0]
    assert len(set(encoder.collate([short, long]).keys)) == 2


def test_the_fingerprint_moves_with_whatever_moves_the_ids() -> None:
    fingerprints = {
        TextEncoder(tokenizer(), 16).fingerprint,
        TextEncoder(tokenizer(), 17).fingerprint,
        TextEncoder(tokenizer(padding_side="left"), 16).fingerprint,
    }
    assert len(fingerprints) == 3


def test_the_fingerprint_does_not_move_with_what_earlier_calls_left_in_the_tokenizer() -> None:
    made = tokenizer()
    before = TextEncoder(made, 16).fingerprint
    made(["rent", "train stop"], padding=True, truncation=True, max_length=4)
    assert TextEncoder(made, 16).fingerprint == before


def test_images_in_any_form_become_the_same_pixels() -> None:
    grey = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    assert pixels(grey).shape == (1, 3, 4)
    assert torch.equal(pixels(grey), pixels(grey.tolist()))
    assert torch.equal(pixels(grey), pixels([grey.tolist()]))


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("RGB", 3), ("RGBA", 3)])
def test_a_pil_image_is_scaled_and_its_channels_come_first(mode: str, channels: int) -> None:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow").new(mode, (4, 3), "white")
    assert torch.equal(pixels(image), torch.ones(channels, 3, 4))


def test_pixel_values_lie_around_zero_and_labels_stand_beside() -> None:
    rows = [{"image": [[0.0, 1.0]], "label": 1}, {"image": [[0.5, 0.5]], "label": IGNORE}]
    batch = ImageEncoder().collate(rows)
    assert batch.inputs["pixel_values"].tolist() == [[[[-1.0, 1.0]]], [[[0.0, 0.0]]]]
    assert batch.labels.tolist() == [1, IGNORE]
    assert len(set(batch.keys)) == 2


def test_images_of_two_sizes_are_refused_with_both() -> None:
    with pytest.raises(UserError, match=r"\(1, 1, 2\) and \(1, 2, 2\)"):
        ImageEncoder().collate([{"image": np.zeros((2, 2)), "label": 0}, {"image": np.zeros((1, 2)), "label": 0}])
