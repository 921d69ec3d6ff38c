"""The test set stays the one that was frozen, its openings are counted, and nobody chooses on it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from potstill.commands.frozen import check_runs, open_test_set
from potstill.commands.frozen import test_set as make_test_set
from potstill.config.schema import EvaluateConfig, RunConfig, TrainConfig
from potstill.data.manifest import FILE, changed_items, manifest_of_items
from potstill.errors import StoppedError, UserError
from potstill.evaluation.bar import BarConfig
from potstill.tracking.ledger import openings

ITEMS = {"train": ["a", "b"], "validation": ["c"], "test": ["d", "e", "e"]}


def opened(tmp_path: Path, test: str = "t", **run: Any) -> dict[str, Any]:
    name = run.pop("directory", "runs/1")
    options = EvaluateConfig(
        run=name, output=name, ledger=str(tmp_path / "evaluations.jsonl"), bar=run.pop("bar", BarConfig())
    )
    config = TrainConfig(run=RunConfig(experiment="x", name="y", dir=name, **run))
    return open_test_set(options, config, {"run": Path(name)}, test)


def test_every_opening_is_counted_for_each_test_set_by_itself(tmp_path, caplog):
    assert [opened(tmp_path)["count"] for _ in range(2)] == [1, 2]
    assert opened(tmp_path, test="other")["count"] == 1
    assert caplog.text == ""
    assert opened(tmp_path, bar=BarConfig(max_openings=2))["count"] == 3
    assert "opened 3 times" in caplog.text


def test_settings_of_one_sweep_are_not_chosen_between_on_the_test_set(tmp_path):
    first = {"sweep": "lr", "swept": {"optim.lr": 0.1, "seed": 0}}
    opened(tmp_path, **first)
    opened(tmp_path, directory="runs/2", sweep="lr", swept={"optim.lr": 0.1, "seed": 1})
    opened(tmp_path, directory="runs/3", sweep="other", swept={"optim.lr": 0.2})
    opened(tmp_path, directory="runs/3", test="other", sweep="lr", swept={"optim.lr": 0.2})
    with pytest.raises(UserError, match="another setting of the sweep 'lr' than runs/1"):
        opened(tmp_path, directory="runs/4", sweep="lr", swept={"optim.lr": 0.2, "seed": 0})
    assert len(openings(tmp_path / "evaluations.jsonl", "t")) == 3, "what was refused was not opened"


def test_a_ledger_that_cannot_be_read_is_no_empty_one(tmp_path):
    (tmp_path / "evaluations.jsonl").write_text('{"test_set": "t"}\nno json\n')
    with pytest.raises(StoppedError, match="line 2"):
        opened(tmp_path)


def test_the_manifest_tells_which_items_went_and_came():
    before, now = manifest_of_items(ITEMS), manifest_of_items({**ITEMS, "test": ["d", "e", "f"]})
    assert changed_items(before, now, "test") == (["e"], ["f"])
    assert changed_items(before, now, "train") == ([], [])
    assert before["splits"]["test"]["hash"] != now["splits"]["test"]["hash"]


def test_a_run_that_was_frozen_with_another_test_set_is_refused(tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "manifest.json").write_text(json.dumps({"fingerprints": {"data": "abc"}}))
    (tmp_path / FILE).write_text(json.dumps(manifest_of_items(ITEMS)))
    data = SimpleNamespace(manifest=manifest_of_items({**ITEMS, "test": ["d", "e", "f"]}), fingerprint="abc")
    with pytest.raises(UserError, match=r"1 of its items are gone and 1 are new \(-e, \+f\)"):
        check_runs({"run": tmp_path}, data)  # type: ignore[arg-type]
    data.manifest = manifest_of_items(ITEMS)
    check_runs({"run": tmp_path}, data)  # type: ignore[arg-type]


def source(slices: dict[str, list[str]]) -> Any:
    data = SimpleNamespace(
        example_text=lambda _: ["pay the bill", "hi"],
        slice_values=lambda _: slices,
        examples={"test": {"label": [0, 1]}},
        test_dataloader=list,
        item_hashes=lambda _: ["d", "e"],
        fingerprint="abc",
        manifest=manifest_of_items(ITEMS),
    )
    return SimpleNamespace(data=data, task=SimpleNamespace(is_causal=False), label_names=["pay", "hello"])


def test_slices_of_the_bar_stand_beside_those_of_the_data():
    node = {"_target_": "potstill.evaluation.declared.regex", "pattern": "bill"}
    found = make_test_set(source({"part": ["a", "b"]}), BarConfig(slices={"bill": node}))
    assert found.slice_values == {"part": ["a", "b"], "bill": ["yes", "no"]}
    assert found.kinds == {"bill": ("regex", ["yes", "no"])}
    with pytest.raises(UserError, match=r"bar\.slices\.bill"):
        make_test_set(source({"bill": ["a", "b"]}), BarConfig(slices={"bill": node}))
