"""Where a transformer has its layers, and in each the queries, keys and values: found by how the modules are called."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn
from transformers import PreTrainedModel

from potstill.errors import UserError
from potstill.losses.layers import Layers, Part
from potstill.models.taps import bare

# What gives the first layer its input, in the base model: the first of these that there is.
EMBEDDINGS = ("embeddings_project", "embeddings", "drop", "embed_tokens")
STATES = ("queries", "keys", "values")
# What they are called: BERT, RoBERTa; DeBERTa v2, v3; DistilBERT; ViT, Llama, Mistral, Qwen2; and together in GPT-2.
NAMES = (("query", "key", "value"), ("query_proj", "key_proj", "value_proj"), ("q_lin", "k_lin", "v_lin"))
NAMES += (("q_proj", "k_proj", "v_proj"), ("c_attn",))
# Architectures whose attention is softmax(q.k / sqrt(width of a head)), to both sides.
PLAIN_SCORES = ("bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "vit")


def layers_of(model: PreTrainedModel, key: str, *, who: str) -> Layers:
    """The layers of `model`, which is the student or the teacher (`who`). UserError under `key` where none are found.

    A layer's output is that of its block: of the last, before what the architecture normalises it by afterwards.
    """
    inner = bare(model)
    assert isinstance(inner, PreTrainedModel)
    config, base = inner.config, inner.base_model
    prefix = "" if base is inner else f"{inner.base_model_prefix}."
    modules = dict(base.named_modules())
    num_layers = getattr(config, "num_hidden_layers", None)
    lists = [path for path, each in modules.items() if isinstance(each, nn.ModuleList) and len(each) == num_layers]
    embeddings = [name for name in EMBEDDINGS if name in modules]
    if not lists or not embeddings:
        problem = f"asks for layers by number, but in the {who} ({type(inner).__name__}) they are not found."
        raise UserError(key, None, problem, f"Give module paths, where the term has them: potstill inspect {who}=...")
    outputs = tuple(f"{prefix}{lists[0]}.{number}" for number in range(num_layers or 0))
    attention = [_states(path, inner.get_submodule(path)) for path in outputs]
    return Layers(
        architecture=type(inner).__name__,
        embeddings=f"{prefix}{embeddings[0]}",
        outputs=outputs,
        attention=tuple(each for each in attention if each) if all(attention) else (),
        num_heads=getattr(config, "num_attention_heads", 0),
        has_plain_scores=config.model_type in PLAIN_SCORES and not getattr(config, "is_decoder", False),
    )


def _states(path: str, block: nn.Module) -> Mapping[str, Part] | None:
    """Queries, keys and values of one block; None where it has none by these names, or several (cross-attention)."""
    inside = [name for name, _ in block.named_modules()]
    for names in NAMES:
        paths = [f"{path}.{name}" for wanted in names for name in inside if name.split(".")[-1] == wanted]
        if paths and len(paths) == len(names):
            parts = [Part(each) for each in paths] if len(paths) > 1 else [Part(paths[0], i, 3) for i in range(3)]
            return dict(zip(STATES, parts, strict=True))
    return None
