"""`potstill mine` and `gain`: what is known to fail is found, named, asked for and mended; no test item leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from potstill.commands.evaluate import find_runs
from potstill.generation.overlap import text_hash
from tests.conftest import Outcome
from tests.generation.servers import endpoint, overrides
from tests.mining.rounds import INTENTS, LACKING, begin, go_on, of_student, read, rows, write

pytestmark = pytest.mark.slow  # two trainings, and a command or more each


@pytest.fixture(scope="module")
def made(saved, tmp_path_factory) -> dict[str, str]:
    return begin(tmp_path_factory.mktemp("round"), saved(words=list(INTENTS)))


@pytest.fixture
def mine(potstill, made):
    """Mines with further options into `mined`; returns what was shown."""

    def run(*options: str, pool: str = "pool") -> str:
        given = (f"run={made['run']}", "pool=file", f"pool.train={made[pool]}", "clusters=2", "budget=20")
        outcome = potstill("mine", *given, *options, "output=mined")
        assert outcome.code == 0, outcome.err
        return " ".join(outcome.out.split())

    return run


def lines(name: str) -> list[dict[str, Any]]:
    return read(Path("mined", name))


def summary(directory: str = "mined") -> dict[str, Any]:
    return json.loads(Path(directory, "mined.json").read_text())


def test_the_intent_that_training_lacks_is_found_named_and_taken_from_the_pool(mine, made):
    shown = mine()
    failures, proposals, found = lines("mined.jsonl"), lines("proposals.jsonl"), summary()
    assert {row["gold"] for row in failures} == {LACKING}
    assert {row["split"] for row in failures} == {"validation"}
    assert all(LACKING in each["name"] for each in found["clusters"])
    assert sum(each["size"] for each in found["clusters"]) == len(failures) == found["failures"]
    assert sum(each["share"] for each in found["clusters"]) == pytest.approx(1)
    assert [each["size"] for each in found["clusters"]] == sorted((e["size"] for e in found["clusters"]), reverse=True)
    assert f"{LACKING}" in shown
    taken = [row["text"] for row in proposals]
    assert len(set(taken)) == 20
    assert sum(LACKING in text.split() for text in taken) >= 12, "a quarter of the pool has it"
    assert {row["nearest"] for row in proposals} <= {row["item"] for row in failures}
    assert "intent" not in proposals[0], "a pool's labels are not read"
    assert set(taken) <= {row["text"] for row in read(Path(made["pool"]))}
    held = lines("held_back.jsonl")
    assert {row["item"] for row in held}.isdisjoint(row["item"] for row in failures)
    assert len(held) == found["held_back"] > 80
    [first, *_] = lines("prompts.jsonl")
    assert first["count"] == 10
    assert f"({LACKING})" in first["text"]
    assert first["text"].count("\n- ") == 8


@pytest.mark.thorough
def test_a_random_pick_knows_nothing_of_what_failed(mine):
    mine("pick=random")
    taken = lines("proposals.jsonl")
    assert len({row["text"] for row in taken}) == 20
    assert 0 < sum(LACKING in row["text"].split() for row in taken) < 15
    assert {row["cluster"] for row in taken} == {None}


@pytest.mark.thorough
def test_options_of_a_round_change_what_is_mined(mine, made):
    taken = []
    for options in (["seed=0"], ["seed=1"]):
        mine("pick=random", "held_back=0.0", *options)
        taken.append({row["text"] for row in lines("proposals.jsonl")})
        assert lines("held_back.jsonl") == []
    assert taken[0] != taken[1]
    encoder = f"{made['teacher']}/student"
    mine(f"encoder={encoder}", "examples=2", "per_prompt=4")
    assert summary()["embedding"] == encoder
    assert sum(LACKING in row["text"].split() for row in lines("proposals.jsonl")) == 20, "it tells intents apart"
    [first, *_] = lines("prompts.jsonl")
    assert first["count"] == 4
    assert first["text"].count("\n- ") == 2


@pytest.mark.thorough
def test_a_gain_is_a_wandb_run_where_asked_for(mine, made, potstill):
    mine()
    given = (f"run={made['run']}", f"before={made['run']}", "mined=mined", "output=seen")
    outcome = potstill("gain", *given, "logger=wandb", "logger.mode=offline")
    assert outcome.code == 0, outcome.err
    [_] = Path("seen/wandb").glob("offline-run-*/*.wandb")


def test_a_test_item_in_the_pool_is_not_proposed_whatever_it_looks_like(mine, made, tmp_path):
    tested = [row["text"] for row in read(Path(made["test"])) if row["intent"] == LACKING]
    planted = [tested[0], f"  {tested[1].upper()}!", f"{tested[2]}s"]
    validated = next(row["text"] for row in read(Path(made["validation"])) if row["intent"] == LACKING)
    others = [{"text": text} for text in (*planted, validated, "?!", "only here fly", "only here fly")]
    made["planted"] = write(tmp_path / "planted.jsonl", [*read(Path(made["pool"])), *others])
    mine("budget=200", pool="planted")
    taken = {row["text"] for row in lines("proposals.jsonl")}
    assert len(taken) == 200, "all that is left, the new one included"
    assert "only here fly" in taken
    assert taken.isdisjoint([*planted, validated, "?!"])
    assert summary()["left_out"]["pool"] == {"test item": 3, "validation item": 1, "empty": 1, "twice": 1}


def test_a_failure_that_is_a_test_item_is_in_no_file(mine, tmp_path):
    mine()
    text = lines("mined.jsonl")[0]["text"]
    proposed = lines("proposals.jsonl")[0]["text"]
    (tmp_path / "hashes.txt").write_text(f"{text_hash(text)}\n{text_hash(proposed)}\n")
    mine("test_manifest=hashes.txt")
    found = "".join(Path("mined", name).read_text() for name in ("mined.jsonl", "proposals.jsonl", "prompts.jsonl"))
    assert text not in found
    assert proposed not in found
    assert summary()["left_out"]["failures"] == {"test item": 1}
    assert summary()["left_out"]["pool"]["test item"] == 1


@pytest.mark.thorough
def test_a_round_gains_and_the_stop_rule_counts_what_is_left(mine, made, potstill, tmp_path):
    mine("budget=40", "total=60")
    after = go_on(tmp_path / "after", made, "mined")
    given = ("gain", f"run={after}", f"before={made['run']}", "mined=mined")
    outcome = potstill(*given, "gone=0.01")
    assert outcome.code == 0, outcome.err
    found = json.loads(Path("mined/gain.json").read_text())
    assert found["n"] == summary()["held_back"]
    assert found["difference"]["value"] > 0.15
    assert found["difference"]["p_value"] < 0.001
    assert found["slices"][-1]["slice"] == f"label={LACKING}"
    assert found["left"] == 20
    worst = found["clusters"][0]
    assert worst["before"]["value"] > worst["after"]["value"]
    assert found["stop"] is None or "is gone" in found["stop"]
    assert "won" in outcome.out
    assert potstill(*given, "gone=0.99").code == 0
    assert "is gone" in json.loads(Path("mined/gain.json").read_text())["stop"]

    second = ("mine", f"run={after}", "pool=file", f"pool.train={made['pool']}", "budget=40", "total=60")
    assert potstill(*second, "splits=[pool]", "trust_teacher=true", "output=second").code == 0
    budget = summary("second")["budget"]
    assert (budget["round"], budget["before"], budget["left"]) == (20, 40, 20)
    assert summary("second")["left_out"]["pool"]["in train"] == 40, "nothing is asked twice"
    outcome = potstill(*second[:-1], "total=40", "output=third")
    assert outcome.code == 2
    assert "is used up" in outcome.words

    outcome = potstill("gain", f"run={made['run']}", f"before={made['run']}", "mined=mined", "output=none")
    assert "no gain that is more than chance" in json.loads(Path("none/gain.json").read_text())["stop"]


RECIPE = """
stages:
  student: {{command: train, overrides: [{student}]}}
rounds: 2
round:
  mine:
    command: mine
    overrides: ["run={{student}}", pool=file, "pool.train={pool}", clusters=2, budget=30, total=30]
  student: {{command: train, overrides: [{student}, "data.source.added={{mine_all}}"]}}
  gain:
    command: gain
    overrides: ["run={{student}}", "before={{student_before}}", "mined={{mine}}", gone=0.001]
last:
  evaluate:
    command: evaluate
    overrides: ["run={{student}}", "+models.first={{student_first}}", bar=none, "mixes=[[1,1]]"]
"""


def test_a_loop_goes_round_until_a_gain_says_stop_and_is_taken_up_again(made, potstill, tmp_path):
    (tmp_path / "own" / "recipe").mkdir(parents=True)
    student = ", ".join(json.dumps(text) for text in of_student(made))
    (tmp_path / "own" / "recipe" / "tiny.yaml").write_text(RECIPE.format(student=student, pool=made["pool"]))
    loop = ("run", "--config-dir", "own", "recipe=tiny", "logger=none", "run.dir=loop")
    done = ["student", "mine_1", "student_1", "gain_1", "evaluate"]

    def ran(outcome: Outcome) -> list[str]:
        assert outcome.code == 0, outcome.err
        return [name for name in [*done, "mine_2", "student_2"] if f"Stage '{name}': potstill" in outcome.out]

    outcome = potstill(*loop)
    assert ran(outcome) == done, "of two rounds one, which used the budget up"
    assert "Round 1 is the last: the budget is used up." in outcome.out
    gained = json.loads(Path("loop/gain_1/gain.json").read_text())
    assert (gained["left"], gained["difference"]["p_value"] < 0.001) == (0, True)
    evaluation = json.loads(Path("loop/evaluation.json").read_text())
    right = {name: model["overall"]["accuracy"] for name, model in evaluation["models"].items()}
    assert right["student"] > right["first"] + 0.15
    assert len(Path("evaluations.jsonl").read_text().splitlines()) == 1, "the test set is opened once, at the end"
    assert find_runs(Path("loop"), None) == {"run": Path("loop/student_1")}
    assert ran(potstill(*loop)) == []
    Path("loop/gain_1/gain.json").unlink()
    assert ran(potstill(*loop)) == ["gain_1"]


@pytest.mark.thorough
def test_what_a_teacher_wrote_goes_through_the_same_guard(mine, made, potstill, tmp_path):
    tested = read(Path(made["test"]))[2]["text"]
    template = "SAY {% for n in range(count) %}{{ n + 1 }}. zuzu{{ n }} sisi {{ terms[0] }}\n{% endfor %}- "
    mine(f"template='{template}{tested}'", "clusters=1")
    duty = "name the teacher, planted 4711"
    with endpoint(tmp_path) as server:
        terms = {"teacher__terms__duties": f"['{duty}']"}
        assert potstill("generate", *overrides(server.url, tmp_path / "mined/prompts.jsonl", **terms)).code == 0
    pool = ("pool=generated", "pool.path=out")
    given = (f"run={made['run']}", *pool, "budget=20", "logger=wandb", "logger.mode=offline", "output=mined")
    outcome = potstill("mine", *given)
    assert outcome.code == 0, outcome.err
    taken = [row["text"] for row in lines("proposals.jsonl")]
    assert sorted(taken) == [f"zuzu{n} sisi {LACKING}" for n in range(10)]
    assert summary()["left_out"]["pool"]["test item"] > 0
    [_] = Path("mined/wandb").glob("offline-run-*/*.wandb")
    go_on(tmp_path / "after", made, "mined")
    assert potstill("evaluate", "run=after", "bar=none", "ledger=evaluations.jsonl").code == 0
    for paper in ("manifest.json", "student/README.md", "evaluation.json", "report.html", "ml-bom.json"):
        assert duty in Path("after", paper).read_text(), paper


@pytest.fixture
def refused(potstill):
    def check(arguments: tuple[str, ...], words: str) -> None:
        outcome = potstill(*arguments, *(["output=mined"] if arguments[0] == "mine" else []))
        assert outcome.code == 2, arguments
        assert words in outcome.words, outcome.err
        assert not Path("mined").exists()

    return check


def test_bad_input_is_refused_with_its_fix(made, refused):
    run, pool = f"run={made['run']}", ("pool=file", f"pool.train={made['pool']}")
    for arguments, words in (
        (("mine", "run=nowhere"), "holds no config.yaml"),
        (("mine", f"run={made['teacher']}"), "has no teacher"),
        (("mine", run, "budget=0"), "must be greater than zero"),
        (("mine", run, "splits=[train,test]"), "cannot be tested there"),
        (("mine", run, "splits=[trian]"), "Nearest: 'train'"),
        (("mine", run, "splits=[]"), "nothing to mine"),
        (("mine", run, *pool, "splits=[pool]"), "trust_teacher=true"),
        (("mine", run, "held_back=1.0"), "must lie in [0, 1)"),
        (("mine", run, "pick=nearer"), "Nearest: 'nearest'"),
        (("mine", run, "template='{{ text'"), "is no template"),
        (("mine", run, "template='{{ exampels }}'"), "Nearest: 'examples'"),
        (("mine", run, "pool=fiel"), "Nearest: 'file'"),
        (("gain", run, f"before={made['run']}", "mined=nowhere"), "nothing was mined there"),
        (("gain", run, f"before={made['run']}", "mined=nowhere", "alpha=1.5"), "between 0 and 1"),
    ):
        refused(arguments, words)


def test_a_pool_that_cannot_be_is_refused(made, refused, tmp_path):
    write(tmp_path / "empty.jsonl", [])
    write(tmp_path / "other.jsonl", [{"query": "fly"}])
    run = f"run={made['run']}"
    for arguments, words in (
        (("mine", run, "pool=file", f"pool.train={made['test']}"), "test items"),
        (("mine", run, "pool=file", f"pool.train={made['train']}"), "nothing that may be proposed: 120 in train"),
        (("mine", run, "pool=file", f"pool.train={tmp_path}/empty.jsonl"), "is empty"),
        (("mine", run, "pool=file", f"pool.train={tmp_path}/other.jsonl"), "has no column 'text'"),
        (("mine", run, "test_manifest=nothing.txt"), "no such file"),
    ):
        refused(arguments, words)


@pytest.mark.thorough
def test_training_on_a_test_item_is_refused_at_the_last_lock(made, tmp_path):
    write(tmp_path / "added.jsonl", [*rows(3, 9), {**read(Path(made["test"]))[0], "intent": ""}])
    with pytest.raises(ValueError, match="of the rows are test items of the test split"):
        go_on(tmp_path / "after", made, str(tmp_path / "added.jsonl"))
