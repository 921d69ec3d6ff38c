"""Text that models write themselves: the same in a batch as alone, and by one rule for all of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from potstill.evaluation.answering import Decoding, num_positions, write
from potstill.evaluation.predict import ModelUnderTest
from tests.data.examples import tokenizer

PROMPTS = [[5, 6, 7], [9], [11, 12, 13, 14, 15, 16], [8, 3]]
TOKENIZER = tokenizer()


def model(seed: int = 0) -> ModelUnderTest:
    """Learned positions, so that padding counted as text would show; each of its ids but the first is a letter."""
    torch.manual_seed(seed)
    sizes: dict[str, Any] = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 90}
    config = GPT2Config(**sizes, tie_word_embeddings=False, bos_token_id=0, eos_token_id=None)
    made = GPT2LMHeadModel(config)
    for parameter in made.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=2.0)  # the usual ones are so small that every text is alike
    return ModelUnderTest(made.eval())


def decoding(max_new_tokens: int = 8, batch_size: int = 4) -> Decoding:
    return Decoding(TOKENIZER, max_new_tokens, batch_size)


def test_an_answer_does_not_depend_on_what_it_is_padded_beside():
    tested = model()
    together = write(tested, PROMPTS, decoding())
    alone = [write(tested, [ids], decoding(batch_size=1)).texts[0] for ids in PROMPTS]
    assert list(together.texts) == alone
    assert len(set(alone)) == len(PROMPTS), "answers that are all alike would hide an exchanged order"


def test_a_models_own_way_of_generating_takes_no_part_and_is_put_back():
    plain, odd = model(), model()
    own = odd.model.generation_config
    own.do_sample, own.temperature, own.repetition_penalty = True, 5.0, 9.0  # type: ignore[union-attr]
    expected = write(plain, PROMPTS, decoding())
    assert [write(odd, PROMPTS, decoding()) for _ in range(2)] == [expected, expected]
    assert odd.model.generation_config is own


def test_an_answer_that_ends_by_itself_is_not_cut_off():
    tested = model()
    free = write(tested, PROMPTS[:1], decoding())
    first = TOKENIZER(free.texts[0], add_special_tokens=False)["input_ids"]
    assert free.truncated == (True,)
    tested.model.generation_config.eos_token_id = first[2]  # type: ignore[union-attr,index]
    ended = write(tested, PROMPTS[:1], decoding())
    assert (ended.truncated, free.texts[0].startswith(ended.texts[0])) == ((False,), True)
    assert len(ended.texts[0]) < len(free.texts[0])
    told = write(model(), PROMPTS[:1], replace(decoding(), ends=(first[2],)))
    assert told == ended


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_room_of_a_model_is_known_under_its_own_name(kind):
    from transformers import AutoConfig, AutoModelForCausalLM

    names = {"gpt2": {"n_positions": 24, "n_embd": 8, "n_layer": 1, "n_head": 1}, "llama": {}}
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 24}
    options = names[kind] or {**sizes, "intermediate_size": 8, "num_key_value_heads": 1}
    made = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, vocab_size=320, **options))
    assert num_positions(ModelUnderTest(made)) == 24
