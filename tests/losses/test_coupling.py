from __future__ import annotations

import pytest

from potstill.errors import UserError
from potstill.losses.coupling import refuse_cuts, refuse_weights

from .registry import make_term

UNCUT = {"hardware.micro_batch_examples": None, "hardware.micro_batch_tokens": None}


@pytest.mark.parametrize("key", UNCUT)
def test_micro_batches_of_coupled_rows_are_refused_with_the_key_to_change(key: str) -> None:
    with pytest.raises(UserError, match=r"loss\.term\.DISTIntra") as caught:
        refuse_cuts([make_term("kd"), make_term("dist_intra")], {**UNCUT, key: 16}, num_ranks=1)
    assert (caught.value.key, caught.value.value) == (key, 16)
    assert f"{key}=null" in caught.value.fix


def test_several_ranks_are_refused_for_coupled_rows() -> None:
    with pytest.raises(UserError, match="cuts batches") as caught:
        refuse_cuts([make_term("dist_intra")], UNCUT, num_ranks=2)
    assert (caught.value.key, caught.value.value) == ("hardware.devices", 2)


def test_a_whole_batch_on_one_rank_is_allowed() -> None:
    refuse_cuts([make_term("dist_intra")], UNCUT, num_ranks=1)


def test_rows_that_stand_alone_may_be_cut() -> None:
    refuse_cuts([make_term("kd"), make_term("dist_inter")], dict.fromkeys(UNCUT, 1), num_ranks=8)


def test_examples_that_are_compared_with_each_other_have_no_weight_of_their_own() -> None:
    with pytest.raises(UserError, match=r"loss\.term\.DISTIntra compares them with each other") as caught:
        refuse_weights([make_term("kd"), make_term("dist_intra")], {"data.columns.weight": "agreement"})
    assert caught.value.key == "data.columns.weight"
    refuse_weights([make_term("kd")], {"data.columns.weight": "agreement"})
    refuse_weights([make_term("dist_intra")], {"data.columns.weight": None})
