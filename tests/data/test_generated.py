"""What a student is taught with an export: which examples, of what weight, in which split, and what is left out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from potstill.config.compose import composed
from potstill.config.schema import ColumnsConfig
from potstill.data.generated import GeneratedText, generated
from potstill.data.module import DataModule
from potstill.data.traces import Trace
from potstill.errors import UserError
from tests.data.examples import build, config, tokenizer
from tests.data.exports import export

SAID: dict[str, Any] = composed("train", ["data=generated", "data.source.path=x"]).data.source.tasks
TASKS: dict[str, Any] = composed("train", ["data=generated_multi_task", "data.source.path=x"]).data.source.tasks
ANSWERED = [
    {
        "prompt": f"where does {n} stop",
        "answer": str(n),
        "rationale": "pay the old mill." * (1 + n % 3),
        "raw": f"so {n}",
    }
    for n in range(40)
]


def rows_of(table: Dataset, *columns: str) -> list[Any]:
    return list(zip(*(table[name][:] for name in columns), strict=True))


def data_of(splits: GeneratedText, **changes: Any) -> DataModule:
    columns = ColumnsConfig(prompt="prompt", completion="completion", weight="weight", group="asked")
    options = {"slices": ["task"], "max_length": 64, "columns": columns, **changes}
    return build(splits, config(task="causal_lm", **options))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("tokenizer")
    tokenizer().save_pretrained(directory)
    return str(directory)


def test_without_options_a_student_learns_what_was_said(tmp_path: Path) -> None:
    splits = generated(export(tmp_path, ANSWERED), tasks=SAID)
    assert rows_of(splits["train"], "prompt", "completion") == [(row["prompt"], row["raw"]) for row in ANSWERED]
    assert set(splits["train"]["weight"][:]) == {1.0}
    [record] = splits.licence_records
    assert (splits.left_out, record["model"]) == ([], "m")


def test_answer_and_rationale_are_two_tasks_and_each_counts_by_its_weight(tmp_path: Path) -> None:
    nodes = {**TASKS, "rationale": {**TASKS["rationale"], "weight": 0.5}}
    splits = generated(export(tmp_path, ANSWERED), tasks=nodes)
    assert rows_of(splits["train"], "prompt", "completion")[:2] == [
        ("[answer] where does 0 stop", "0"),
        ("[rationale] where does 0 stop", "pay the old mill."),
    ]
    table = data_of(splits, balance_by="task").examples["train"]
    totals: Counter[str] = Counter()
    for task, weight, num_rows in rows_of(table, "slice:task", "weight", "num_rows"):
        totals[task] += weight * num_rows
    assert totals["rationale"] / totals["answer"] == pytest.approx(0.5)
    unbalanced = data_of(splits).examples["train"]
    assert dict(rows_of(unbalanced, "slice:task", "weight"))["rationale"] < 1.0


def test_examples_of_one_prompt_are_on_one_side_of_every_split(tmp_path: Path) -> None:
    sides: dict[str, set[str]] = {}
    for split, table in data_of(generated(export(tmp_path, ANSWERED), tasks=TASKS)).examples.items():
        for prompt in table["prompt"][:]:
            sides.setdefault(prompt.partition("] ")[2], set()).add(split)
    assert len(sides) == 40
    assert all(len(splits) == 1 for splits in sides.values())


def test_a_row_without_a_rationale_teaches_its_answer_alone_and_is_listed(tmp_path: Path) -> None:
    splits = generated(export(tmp_path, [{**ANSWERED[0], "rationale": None}, ANSWERED[1]]), tasks=TASKS)
    assert splits["train"]["task"][:] == ["answer", "answer", "rationale"]
    [left_out] = splits.left_out
    assert (left_out["reason"], left_out["task"], left_out["asked"]) == (
        "no rationale",
        "rationale",
        "where does 0 stop",
    )


def traces(words: str, tmp_path: Path, **options: Any) -> GeneratedText:
    texts = ["Pay 3.5 today. Then stop.", "pay " * 40, None, "Stop."]
    rows = [{"prompt": f"p{n}", "raw": "r", "answer": "a", "reasoning": text} for n, text in enumerate(texts)]
    tasks = {"said": {"prompt": "{{ prompt }}", "completion": "{{ reasoning }} so {{ answer }}"}}
    return generated(export(tmp_path, rows), tasks=tasks, trace=Trace(**options), tokenizer=words)


def test_a_long_trace_ends_after_a_step_or_goes_and_both_are_listed(words: str, tmp_path: Path) -> None:
    count = len(tokenizer()("Pay 3.5 today.", add_special_tokens=False)["input_ids"])  # type: ignore[arg-type]
    splits = traces(words, tmp_path, max_tokens=count + 1, longer="truncate")
    assert splits["train"]["completion"][:] == ["Pay 3.5 today. so a", "Stop. so a"]
    reasons = [each["reason"] for each in splits.left_out]
    assert [reason.partition(": ")[2] for reason in reasons] == ["truncated", "left out", ""]
    assert reasons[2] == "no reasoning"
    dropped = traces(words, tmp_path / "again", max_tokens=count + 1, longer="drop")
    assert dropped["train"]["completion"][:] == ["Stop. so a"]


def test_of_several_samples_the_shortest_is_learnt(words: str, tmp_path: Path) -> None:
    said = [(0, 0, "pay pay"), (0, 1, "pay"), (1, 0, "stop"), (0, 2, "rent")]
    rows = [{"prompt": f"p{row}", "row": row, "sample": sample, "raw": raw} for row, sample, raw in said]
    splits = generated(export(tmp_path, rows), samples="shortest", tasks=SAID, tokenizer=words)
    assert splits["train"]["completion"][:] == ["pay", "stop"]
    assert [each["sample"] for each in splits.left_out] == [0, 2]


def gold_file(directory: Path, count: int) -> str:
    path = directory / "gold.jsonl"
    path.write_text("".join(json.dumps({"q": f"gold {n}", "a": f"so #### {n}"}) + "\n" for n in range(count)))
    return str(path)


FIELDS = {"prompt": "{{ q }}", "raw": "{{ a }}", "answer": "{{ a.split('#### ')[1] }}", "rationale": "{{ a }}"}


def test_gold_is_mixed_in_by_its_share_and_the_seed(tmp_path: Path) -> None:
    path, gold = export(tmp_path, ANSWERED), gold_file(tmp_path, 30)

    def chosen(share: float, seed: int = 0) -> set[str]:
        train = generated(path, gold=gold, gold_share=share, seed=seed, tasks=SAID, fields=FIELDS)["train"]
        counts = Counter(train["origin"][:])
        assert counts["gold"] / len(train) == pytest.approx(share, abs=0.02)
        return {prompt for prompt, origin in rows_of(train, "prompt", "origin") if origin == "gold"}

    assert len(chosen(0.2)) == 10
    assert len(chosen(0.6)) == 30, "as many as there are, and fewer of the teacher's"
    assert chosen(0.2) == chosen(0.2) < chosen(0.3)
    assert chosen(0.2) != chosen(0.2, seed=1)


def test_labels_are_rows_as_they_are_also_where_gold_is_mixed_in(tmp_path: Path) -> None:
    gold, weight = gold_file(tmp_path, 40), "{{ 2.0 if 'where' in prompt else 1.0 }}"
    train = generated(export(tmp_path, ANSWERED), gold=gold, fields=FIELDS, weight=weight)["train"]
    assert rows_of(train, "prompt", "answer", "weight", "origin")[1] == ("where does 1 stop", "1", 2.0, "teacher")
    assert rows_of(train, "prompt", "answer", "weight", "origin")[-1] == ("gold 39", "39", 1.0, "gold")


def test_validation_and_test_files_are_read_by_fields_and_hold_the_first_task(tmp_path: Path) -> None:
    gold = gold_file(tmp_path, 3)
    splits = generated(export(tmp_path, ANSWERED), validation=gold, test=gold, tasks=TASKS, fields=FIELDS)
    assert rows_of(splits["test"], "prompt", "completion")[0] == ("[answer] gold 0", "0")
    assert {*splits["test"]["task"][:], *splits["validation"]["task"][:]} == {"answer"}


@pytest.mark.parametrize("weight", ["{{ agreement }}", "{{ 3.0 if agreement > 0.5 else 1.0 }}"])
def test_a_row_counts_by_a_column_or_a_rule(weight: str, tmp_path: Path) -> None:
    rows = [{**row, "agreement": 0.25 if n % 2 else 0.75} for n, row in enumerate(ANSWERED)]
    train = generated(export(tmp_path, rows), weight=weight)["train"]
    assert train["weight"][0] == pytest.approx(3 * train["weight"][1])


TRACE = {"tasks": {"said": {"prompt": "{{ prompt }}", "completion": "{{ reasoning }}"}}}


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"tasks": {"said": None}}, "tasks"),
        ({"tasks": {"said": {"prompt": "p"}}}, "tasks.said.completion"),
        ({"tasks": {"said": {"prompt": "p", "completion": "c", "wieght": 1.0}}}, "tasks.said.wieght"),
        ({"tasks": {"said": {"prompt": "p", "completion": "{{ answre }}"}}}, "tasks.said.completion"),
        ({"tasks": {"said": {"prompt": "p", "completion": "c", "weight": -1}}}, "tasks.said.weight"),
        ({"weight": "{{ answer }} or so"}, "weight"),
        ({"samples": "longest"}, "samples"),
        ({"samples": "shortest"}, "tokenizer"),
        ({**TRACE, "trace": Trace(max_tokens=5)}, "tokenizer"),
        ({"trace": Trace(column="resoning")}, "trace.column"),
        ({"trace": Trace(max_tokens=5), "tokenizer": "words"}, "trace.max_tokens"),
    ],
)
def test_an_option_that_could_not_work_is_refused(
    options: dict[str, Any], key: str, words: str, tmp_path: Path
) -> None:
    options = {**options, "tokenizer": words} if "tokenizer" in options else options
    with pytest.raises(UserError) as caught:
        generated(export(tmp_path, ANSWERED[:3]), **options)
    assert caught.value.key == f"data.source.{key}"


@pytest.mark.parametrize("options", [{"longer": "cut"}, {"max_tokens": 0}])
def test_a_trace_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"data\.source\.trace"):
        Trace(**options)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001])
def test_a_share_that_leaves_one_of_both_out_is_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gold_share"):
        generated(export(tmp_path, ANSWERED), gold=gold_file(tmp_path, 30), gold_share=share, fields=FIELDS)


def test_text_that_may_not_be_trained_on_is_not(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="may not be trained on"):
        generated(export(tmp_path, ANSWERED[:3], train_on_outputs="no"))
