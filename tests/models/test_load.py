"""Teachers and students from their options: what is given is built, what would train in silence is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerBase

from potstill.config.schema import StudentConfig, TeacherConfig
from potstill.errors import UserError
from potstill.models.labels import model_labels
from potstill.models.load import load_student, load_teacher
from potstill.models.task import TASKS

from .test_tokenizers import tokenizer
from .tiny import CONFIGS, text_batch, tiny_model

CAUSAL, TEXT, IMAGE = TASKS["causal_lm"], TASKS["text_classification"], TASKS["image_classification"]
BERT = {"model_type": "bert", **CONFIGS["bert"]}
GPT2 = {"model_type": "gpt2", **CONFIGS["gpt2"]}
BATCH = text_batch([[5, 6, 7], [8, 9]], [0, 1])
SHARED_TEACHER = Path(__file__).parents[3] / "shared/teachers/clinc150_minilm_l6"


@pytest.fixture
def saved(tmp_path: Path) -> str:
    """A directory with a classifier of the labels cat, dog, eel."""
    model = tiny_model("bert", "text_classification", id2label=dict(enumerate(["cat", "dog", "eel"])))
    model.save_pretrained(tmp_path)
    return str(tmp_path)


def words() -> PreTrainedTokenizerBase:
    return tokenizer()


def test_a_teacher_is_frozen_and_in_eval_mode(saved: str):
    teacher = load_teacher(TeacherConfig(path=saved, dtype="bfloat16"), TEXT)
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher.dtype == torch.bfloat16


def test_a_teacher_whose_head_would_be_random_is_refused(tmp_path: Path):
    body = AutoModel.from_config(AutoConfig.for_model(**BERT))
    body.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"lack classifier\.bias, classifier\.weight") as caught:
        load_teacher(TeacherConfig(path=str(tmp_path)), TEXT)
    assert caught.value.key == "teacher.path"


def test_a_student_trains_in_float32_with_the_labels_of_the_data():
    student = load_student(StudentConfig(config=BERT), TEXT, label_names=["eel", "cat"])
    assert student.training
    assert student.dtype == torch.float32
    assert model_labels(student.config) == ["eel", "cat"]
    assert student.config.label2id == {"eel": 0, "cat": 1}


def test_vocabulary_and_special_ids_come_from_the_tokenizer_unless_given():
    keys = {key: value for key, value in BERT.items() if key not in ("vocab_size", "pad_token_id")}
    student = load_student(StudentConfig(config=keys), TEXT, tokenizer=words())
    assert (student.config.vocab_size, student.config.pad_token_id) == (len(words()), words().pad_token_id)
    given = load_student(StudentConfig(config={**keys, "vocab_size": 99}), TEXT, tokenizer=words())
    assert given.config.vocab_size == 99


def test_random_with_a_path_takes_the_architecture_and_not_the_weights(saved: str):
    student = load_student(StudentConfig(path=saved, config={"num_hidden_layers": 1}), TEXT)
    teacher = load_teacher(TeacherConfig(path=saved), TEXT)
    assert student.config.num_hidden_layers == 1
    assert student.config.hidden_size == teacher.config.hidden_size
    name = "bert.embeddings.word_embeddings.weight"
    assert not torch.equal(student.state_dict()[name], teacher.state_dict()[name])


def test_a_pretrained_head_follows_the_labels_of_the_data(saved: str):
    student = load_student(StudentConfig(init="pretrained", path=saved), TEXT, label_names=["eel", "cat", "dog"]).eval()
    teacher = load_teacher(TeacherConfig(path=saved), TEXT)
    torch.testing.assert_close(student(**BATCH.inputs).logits, teacher(**BATCH.inputs).logits[:, [2, 0, 1]])
    assert model_labels(student.config) == ["eel", "cat", "dog"]


def test_layers_of_a_teacher_bring_a_head_that_follows_the_labels_of_the_data(saved: str):
    teacher = load_teacher(TeacherConfig(path=saved), TEXT)
    options = StudentConfig(init="teacher_layers", layers=[0, 1])
    student = load_student(options, TEXT, label_names=["eel", "cat", "dog"], teacher=teacher).eval()
    torch.testing.assert_close(student(**BATCH.inputs).logits, teacher(**BATCH.inputs).logits[:, [2, 0, 1]])
    assert model_labels(teacher.config) == ["cat", "dog", "eel"]


def test_a_pretrained_student_with_other_labels_gets_a_new_head_and_says_so(
    saved: str, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        student = load_student(StudentConfig(init="pretrained", path=saved), TEXT, label_names=["x", "y"])
    assert student.num_labels == 2
    assert "classifier.bias, classifier.weight: these start at random" in caplog.text


def test_decoders_that_classify_are_told_the_pad_token():
    keys = {**GPT2, "pad_token_id": None}
    assert load_student(StudentConfig(config=keys), TEXT, tokenizer=words()).config.pad_token_id == 1


@pytest.mark.parametrize(
    ("options", "key", "hint"),
    [
        ({"config": {**BERT, "hiden_size": 8}}, "student.config.hiden_size", "hidden_size"),
        ({"config": {**BERT, "model_type": "brt"}}, "student.config.model_type", "bert"),
        ({"config": {"hidden_size": 8}}, "student.config.model_type", "bert"),
        ({"config": {**BERT, "hidden_size": "wide"}}, "student.config", "expected int"),
        ({"config": {**BERT, "hidden_size": 33}}, "student.config", "not a multiple"),
        ({"config": {**BERT, "num_labels": 3}}, "student.config.num_labels", "data.label_names"),
        ({"config": {"model_type": "vit"}}, "student.config.model_type", "image_classification"),
        ({"config": BERT, "attn_implementation": "nonsense"}, "student.attn_implementation", "sdpa"),
        ({"config": {**BERT, "hidden_size": 33}, "attn_implementation": "sdpa"}, "student.config", "not a multiple"),
        ({"init": "randm", "config": BERT}, "student.init", "'random'"),
        ({"init": "pretrained"}, "student.path", "student.init=random"),
        ({}, "student.config", "student.path"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_under_its_key(options: dict[str, Any], key: str, hint: str):
    with pytest.raises(UserError) as caught:
        load_student(StudentConfig(**options), TEXT)
    assert caught.value.key == key
    assert hint in str(caught.value)


def test_a_teachers_wrong_dtype_is_refused_under_its_key():
    with pytest.raises(UserError, match="float32") as caught:
        load_teacher(TeacherConfig(path=None, config=BERT, dtype="flot32"), TEXT)
    assert caught.value.key == "teacher.dtype"


def test_pretrained_weights_of_another_width_are_refused(saved: str):
    options = StudentConfig(init="pretrained", path=saved, config={"hidden_size": 8})
    with pytest.raises(UserError, match="does not fit the weights"):
        load_student(options, TEXT)


def test_a_path_and_another_model_type_contradict(saved: str):
    with pytest.raises(UserError, match="is a bert") as caught:
        load_student(StudentConfig(path=saved, config={"model_type": "gpt2"}), TEXT)
    assert caught.value.key == "student.config.model_type"


def test_layers_of_a_teacher_do_not_come_from_a_path(saved: str):
    teacher = load_teacher(TeacherConfig(path=saved), TEXT)
    with pytest.raises(UserError, match="would not be read"):
        load_student(StudentConfig(init="teacher_layers", layers=[0], path=saved), TEXT, teacher=teacher)


@pytest.mark.parametrize("path", ["./no/such", "/no/such", "../no_such", "no/such/directory"])
def test_a_directory_that_does_not_exist_is_named_in_full(path: str):
    with pytest.raises(UserError) as caught:
        load_teacher(TeacherConfig(path=path), TEXT)
    assert caught.value.key == "teacher.path"
    assert str(Path(path).absolute()) in str(caught.value)


def test_a_directory_without_a_model_is_the_users_fault(tmp_path: Path):
    with pytest.raises(UserError, match="cannot be read"):
        load_teacher(TeacherConfig(path=str(tmp_path)), TEXT)


def test_weights_that_are_damaged_are_the_users_fault(saved: str):
    (Path(saved) / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        load_teacher(TeacherConfig(path=saved), TEXT)


def test_a_tokenizer_with_more_ids_than_embeddings_is_refused():
    with pytest.raises(UserError, match="has 7 ids, but the student has embeddings for 3"):
        load_student(StudentConfig(config={**BERT, "vocab_size": 3}), TEXT, tokenizer=words())


def test_an_encoder_does_not_pass_for_a_language_model():
    with pytest.raises(UserError, match="attends to later tokens"):
        load_student(StudentConfig(config=BERT), CAUSAL)
    load_student(StudentConfig(config={**BERT, "is_decoder": True}), CAUSAL)


def test_a_language_model_whose_config_says_nothing_of_decoding_passes():
    neox = {"model_type": "gpt_neox", **CONFIGS["bert"]}
    assert load_student(StudentConfig(config=neox), CAUSAL).training


def test_the_same_seed_gives_the_same_student():
    def weights() -> torch.Tensor:
        torch.manual_seed(3)
        return load_student(StudentConfig(config=GPT2), CAUSAL).get_parameter("transformer.h.0.mlp.c_fc.weight")

    torch.testing.assert_close(weights(), weights(), rtol=0, atol=0)


def test_loading_prints_nothing(saved: str, capfd: pytest.CaptureFixture[str]):
    load_teacher(TeacherConfig(path=saved), TEXT)
    load_student(StudentConfig(config={**GPT2, "eos_token_id": 50256}), CAUSAL)
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not SHARED_TEACHER.exists(), reason=f"{SHARED_TEACHER.name} is not beside this checkout")
def test_the_shared_teacher_knows_its_labels():
    teacher = load_teacher(TeacherConfig(path=str(SHARED_TEACHER)), TEXT)
    assert len(model_labels(teacher.config)) == 151
    assert teacher.dtype == torch.float32
