from __future__ import annotations

import pytest

from potstill.commands.assemble import refuse_batch_norm
from potstill.config.schema import HardwareConfig
from potstill.errors import UserError
from tests.models.tiny import tiny_model

RESNET, VIT = (tiny_model(each, "image_classification") for each in ("resnet", "vit"))


@pytest.mark.parametrize("option", ["micro_batch_examples", "micro_batch_tokens"])
def test_batch_statistics_of_a_part_of_the_batch_are_refused(option: str) -> None:
    with pytest.raises(UserError, match="normalises over what it sees at once") as caught:
        refuse_batch_norm(RESNET.train(), HardwareConfig(**{option: 8}))  # type: ignore[arg-type]
    assert (caught.value.key, caught.value.value) == (f"hardware.{option}", 8)
    assert f"hardware.{option}=null" in caught.value.fix


def test_batch_norm_passes_where_it_sees_the_batch_or_does_not_look() -> None:
    refuse_batch_norm(RESNET.train(), HardwareConfig())
    refuse_batch_norm(RESNET.eval(), HardwareConfig(micro_batch_examples=8))
    refuse_batch_norm(VIT.train(), HardwareConfig(micro_batch_examples=8, micro_batch_tokens=64))
