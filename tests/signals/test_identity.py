"""What differs in anything that decides an answer is another cache, and whoever may only read is told what differs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from potstill.errors import UserError
from potstill.signals.cache import MANIFEST, caches_in, open_cache, read_manifest
from potstill.signals.codecs import Exact, TopK
from potstill.signals.identity import identity_of
from potstill.signals.live import LiveTeacher
from potstill.signals.protocol import Needs
from tests.integration.distil import TAPS, batch, model

from .keeping import counted, kept

TASK, NEEDS = "text_classification", Needs(logits=True)
LABELS = list("abcde")


class Setting:
    """All that a cache is of; a test changes one thing."""

    def __init__(self, tokenizer_path: str) -> None:
        self.model, self.labels, self.order, self.needs = model(TASK), LABELS, None, NEEDS
        self.tokenizer: Any = AutoTokenizer.from_pretrained(tokenizer_path)

    def teacher(self, root: Path, *, write: bool = True) -> Any:
        live = counted(self.model, TASK)
        live.label_order = self.order
        return kept(live, root, self.needs, write=write, tokenizer=self.tokenizer, label_names=self.labels)


def _weight(setting: Setting) -> None:
    with torch.no_grad():
        setting.model.bert.encoder.layer[0].output.dense.weight[0, 0] += 1e-6  # type: ignore[index,union-attr]


def _dtype(setting: Setting) -> None:
    setting.model.bfloat16()


def _activation(setting: Setting) -> None:
    setting.model.config.hidden_act = "relu"


def _attention(setting: Setting) -> None:
    setting.model.set_attn_implementation("eager")


def _template(setting: Setting) -> None:
    setting.tokenizer.chat_template = "{{ messages }}"


def _token(setting: Setting) -> None:
    setting.tokenizer.add_tokens(["new"])


def _labels(setting: Setting) -> None:
    setting.labels = LABELS[::-1]


def _order(setting: Setting) -> None:
    setting.order = [1, 0, 2, 3, 4]


def _taps(setting: Setting) -> None:
    setting.needs = Needs(logits=True, taps=(TAPS[TASK],))


CHANGES: dict[Callable[[Setting], None], str] = {
    _weight: "weights",
    _dtype: "weights",
    _activation: "architecture",
    _attention: "architecture",
    _template: "chat_template",
    _token: "tokenizer",
    _labels: "labels",
    _order: "labels",
    _taps: "stored",
}


@pytest.mark.parametrize(("change", "field"), CHANGES.items(), ids=lambda value: getattr(value, "__name__", value))
def test_no_answer_outlives_a_change_of_what_it_was_given_for(
    change: Callable[[Setting], None], field: str, saved: Callable[..., str], tmp_path: Path
) -> None:
    setting = Setting(saved())
    first = setting.teacher(tmp_path)
    first.signal(batch(TASK), setting.needs)
    first.flush()
    assert len(setting.teacher(tmp_path, write=False).cache.store) == 16, "found as long as nothing changes"
    change(setting)
    with pytest.raises(UserError, match=rf"differs in [^.]*\({field}\)") as caught:
        setting.teacher(tmp_path, write=False)
    assert caught.value.key == "teacher.cache.dir"
    assert len(setting.teacher(tmp_path).cache.store) == 0


def test_a_changed_text_is_another_example(tmp_path: Path) -> None:
    teacher = kept(counted(model(TASK), TASK), tmp_path, NEEDS)
    asked = batch(TASK)
    teacher.signal(asked, NEEDS)
    changed = asked.take([3])
    changed.keys = (changed.keys[0] + "!",)
    changed.inputs["input_ids"][0, 0] += 1
    found = teacher.signal(changed, NEEDS).logits
    assert teacher.live.num_examples == 17
    assert not torch.equal(found, teacher.signal(asked.take([3]), NEEDS).logits)


def test_a_form_is_named_where_another_is_there(tmp_path: Path) -> None:
    live = LiveTeacher(model("causal_lm"), counted(model("causal_lm"), "causal_lm").task, None)
    writer = kept(live, tmp_path, NEEDS, TopK(6))
    writer.signal(batch("causal_lm"), NEEDS)
    writer.flush()
    for codec in (TopK(7), TopK(6, top_p=0.5), TopK(6, values="uint8"), Exact()):
        with pytest.raises(UserError, match=r"\(stored\)"):
            kept(live, tmp_path, NEEDS, codec, write=False)


def test_a_cache_that_was_moved_under_another_name_is_refused(tmp_path: Path) -> None:
    live = counted(model(TASK), TASK)
    teacher = kept(live, tmp_path, NEEDS)
    teacher.signal(batch(TASK), NEEDS)
    teacher.flush()
    [directory] = caches_in(tmp_path)
    with torch.no_grad():
        live.model.classifier.bias += 1.0  # type: ignore[operator]
    codecs = {"logits": Exact()}
    other = open_cache(tmp_path, identity_of(live, None, None, codecs), codecs, write=True).directory
    directory.rename(other)
    with pytest.raises(UserError, match=r"not what its name says: the teacher's weights \(weights\)"):
        kept(live, tmp_path, NEEDS)


def test_an_empty_place_is_refused_where_nothing_may_be_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no signals"):
        kept(counted(model(TASK), TASK), tmp_path, NEEDS, write=False)


def test_the_manifest_says_what_a_row_takes_before_much_is_written(tmp_path: Path) -> None:
    teacher = kept(counted(model(TASK), TASK), tmp_path, NEEDS)
    teacher.signal(batch(TASK).take([0]), NEEDS)
    manifest = read_manifest(teacher.cache.directory)
    assert manifest["bytes_per_row"] == {"logits": 20.0}
    assert (teacher.cache.directory / MANIFEST).exists()
    assert not list(teacher.cache.directory.glob("*.signals"))
