from __future__ import annotations

import pytest

from potstill.commands.assemble import refuse_batch_norm
from potstill.errors import UserError
from tests.models.tiny import tiny_model

RESNET, VIT = (tiny_model(each, "image_classification") for each in ("resnet", "vit"))


@pytest.mark.parametrize("option", ["micro_batch_examples", "micro_batch_tokens"])
def test_batch_statistics_of_a_part_of_the_batch_are_refused(option: str) -> None:
    with pytest.raises(UserError, match="normalises over what it sees at once") as caught:
        refuse_batch_norm(RESNET.train(), {f"hardware.{option}": 8}, num_ranks=1)
    assert (caught.value.key, caught.value.value) == (f"hardware.{option}", 8)
    assert f"hardware.{option}=null" in caught.value.fix


def test_batch_norm_passes_where_it_sees_the_batch_or_does_not_look() -> None:
    whole: dict[str, int | None] = {"hardware.micro_batch_examples": None}
    cut: dict[str, int | None] = {"hardware.micro_batch_examples": 8, "hardware.micro_batch_tokens": 64}
    refuse_batch_norm(RESNET.train(), whole, num_ranks=1)
    refuse_batch_norm(RESNET.eval(), cut, num_ranks=2)
    refuse_batch_norm(VIT.train(), cut, num_ranks=2)


def test_batch_statistics_of_one_rank_are_refused() -> None:
    with pytest.raises(UserError, match="normalises over what it sees at once") as caught:
        refuse_batch_norm(RESNET.train(), {}, num_ranks=2)
    assert (caught.value.key, caught.value.value) == ("hardware.devices", 2)
    assert "hardware.devices=1" in caught.value.fix
