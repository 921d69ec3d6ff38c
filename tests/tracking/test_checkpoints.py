from __future__ import annotations

import pytest
import torch

from potstill.errors import UserError
from potstill.tracking.callbacks import progress
from potstill.tracking.checkpoints import (
    LastCheckpoint,
    best_checkpoint,
    best_path,
    early_stopping,
    monitored,
    trainer_switches,
)

from .conftest import TinyModule, fit


def step_of(path) -> int:
    return torch.load(path, weights_only=True)["global_step"]


def both(directory):
    return [best_checkpoint(str(directory), "text_classification"), LastCheckpoint(str(directory))]


def test_best_is_the_best_epoch_and_last_the_last(tmp_path):
    module = TinyModule(accuracies=(0.5, 0.9, 0.7))
    trainer = fit(module, callbacks=both(tmp_path), enable_checkpointing=True)
    assert best_path(trainer) == tmp_path / "best.ckpt"
    assert step_of(tmp_path / "best.ckpt") == 4
    assert step_of(tmp_path / "last.ckpt") == 6
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.ckpt", "last.ckpt"]


def test_of_equally_good_epochs_the_first_is_kept(tmp_path):
    fit(TinyModule(accuracies=(0.9, 0.9)), callbacks=both(tmp_path), enable_checkpointing=True)
    assert step_of(tmp_path / "best.ckpt") == 2


def test_last_has_the_steps_after_the_last_validation(tmp_path):
    options = {"val_check_interval": 2, "check_val_every_n_epoch": None, "max_steps": 5}
    fit(TinyModule(), callbacks=both(tmp_path), enable_checkpointing=True, **options)
    assert step_of(tmp_path / "last.ckpt") == 5


def test_a_second_run_in_the_directory_replaces_the_checkpoints(tmp_path):
    fit(TinyModule(), callbacks=both(tmp_path), enable_checkpointing=True)
    with pytest.warns(UserWarning, match="exists and is not empty"):
        fit(TinyModule(), callbacks=both(tmp_path), enable_checkpointing=True, epochs=1)
    assert {path.name: step_of(path) for path in tmp_path.iterdir()} == {"best.ckpt": 2, "last.ckpt": 2}


def test_without_validation_there_is_no_best(tmp_path):
    with pytest.warns(UserWarning, match="could not find the monitored key"):
        trainer = fit(TinyModule(), callbacks=both(tmp_path), enable_checkpointing=True, limit_val_batches=0)
    assert best_path(trainer) is None
    assert step_of(tmp_path / "last.ckpt") == 6


def test_training_goes_on_from_last(tmp_path):
    fit(TinyModule(), callbacks=both(tmp_path), enable_checkpointing=True, epochs=1)
    fresh = TinyModule()
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    fresh.load_state_dict(checkpoint["state_dict"])
    assert fresh.weight.item() == pytest.approx(1 - 0.8**2)


def test_early_stopping_ends_a_training_that_gets_no_better():
    trainer = fit(
        TinyModule(accuracies=(0.9, 0.8, 0.7, 0.6, 0.5)),
        epochs=5,
        callbacks=[early_stopping("text_classification", patience=2)],
    )
    assert trainer.current_epoch == 3


@pytest.mark.parametrize(
    ("task", "name"),
    [("causal_lm", "val/loss"), ("text_classification", "val/accuracy"), ("image_classification", "val/accuracy")],
)
def test_best_is_chosen_by_what_the_task_is_about(task, name):
    assert monitored("auto", task, "callbacks.best.monitor") == name


def test_a_loss_is_minimised_and_an_accuracy_maximised(tmp_path):
    modes = [best_checkpoint(str(tmp_path), "causal_lm", name).mode for name in ("val/loss", "val/accuracy")]
    assert modes == ["min", "max"]


@pytest.mark.parametrize("name", ["test/accuracy", "train/loss", "val/acuracy"])
def test_weights_cannot_be_chosen_on_anything_but_validation(tmp_path, name):
    with pytest.raises(UserError, match=r"callbacks\.best\.monitor"):
        best_checkpoint(str(tmp_path), "text_classification", name)


def test_lightning_adds_no_callback_nobody_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for callbacks in ([], [*both(tmp_path / "checkpoints"), progress()]):
        trainer = fit(TinyModule(), epochs=1, callbacks=callbacks, **trainer_switches(callbacks))
        assert trainer.progress_bar_callback in [None, *callbacks]
        assert all(callback in callbacks for callback in trainer.checkpoint_callbacks)
