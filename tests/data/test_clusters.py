"""Nearly equal texts on two sides of a split: what a test set must not be made of."""

from __future__ import annotations

from datasets import Dataset, DatasetDict

from potstill.config.schema import ColumnsConfig, DataConfig
from potstill.data.build import prepare
from potstill.data.clusters import with_groups
from potstill.data.content import content_hash
from potstill.data.splits import complete


def table(texts: list[str]) -> Dataset:
    return Dataset.from_dict({"text": texts, "content": [content_hash(text) for text in texts]})


def sentences(number: int) -> list[str]:
    """One sentence of its own, and four that are nearly the same."""
    one = " ".join(content_hash(number, part)[:7] for part in range(9))
    return [one, f"{one}!", one.upper(), f"{one} x", f"{one} yz"]


def test_nearly_equal_texts_never_stand_on_two_sides() -> None:
    texts = [text for number in range(80) for text in sentences(number)]
    by_content = complete({"train": table(texts)}, 0.2, 0.3)
    assert len(sides(by_content)) > 80, "by content alone they would"
    splits = complete(with_groups({"train": table(texts)}), 0.2, 0.3)
    assert len(sides(splits)) == 80
    assert sum(map(len, splits.values())) == len(texts)


def sides(splits: dict[str, Dataset]) -> set[tuple[str, str]]:
    """Each family of sentences with each split that holds one of it."""
    return {(text.lower().split()[0].rstrip("!"), split) for split, each in splits.items() for text in each["text"][:]}


def test_the_option_decides() -> None:
    texts = [text for number in range(60) for text in sentences(number)]
    source = DatasetDict({"train": table(texts).add_column("intent", ["pay", "chat"] * 150)})  # type: ignore[call-arg]
    columns = ColumnsConfig(text="text", label="intent")
    for together in (False, True):
        config = DataConfig(task="text_classification", columns=columns, keep_near_together=together)
        splits = prepare(config, source, ["chat", "pay"], 0)
        assert (len(sides(splits)) == 60) is together


def test_a_text_without_neighbours_keeps_its_side() -> None:
    texts = [sentences(number)[0] for number in range(200)]
    before = {
        text: split for split, each in complete({"train": table(texts)}, 0.2, 0.3).items() for text in each["text"]
    }
    grouped = complete(with_groups({"train": table(texts)}), 0.2, 0.3)
    assert {text: split for split, each in grouped.items() for text in each["text"]} == before


def test_clusters_reach_across_tables() -> None:
    one, two = sentences(0)[0], sentences(0)[3]
    grouped = with_groups({"train": table([one, sentences(1)[0]]), "validation": table([two])})
    assert grouped["train"]["group"][0] == grouped["validation"]["group"][0] != grouped["train"]["group"][1]


def test_texts_without_a_letter_are_no_family() -> None:
    grouped = with_groups({"train": table(["?", "!", "..."])})
    assert len(set(grouped["train"]["group"][:])) == 3


def test_no_text_is_a_cluster_of_nothing() -> None:
    assert len(with_groups({"train": table([])})["train"]) == 0
