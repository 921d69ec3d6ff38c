from __future__ import annotations

import pytest
import pytorch_lightning as pl
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


@pytest.mark.parametrize(("minutes", "saved"), [(1e-9, [1, 2, 3, 4, 5, 6]), (60.0, [6]), (None, [6])])
def test_last_is_written_as_time_goes_by(minutes, saved, tmp_path, monkeypatch):
    """Agreed on by all ranks, which takes a step: asked for before step 1, it is written before step 2."""
    steps, save = [], pl.Trainer.save_checkpoint
    monkeypatch.setattr(
        pl.Trainer, "save_checkpoint", lambda self, path: (steps.append(self.global_step), save(self, path))
    )
    callbacks = [LastCheckpoint(str(tmp_path), every_minutes=minutes)]
    fit(TinyModule(), callbacks=callbacks, enable_checkpointing=True, limit_val_batches=0)
    assert steps == saved


def test_without_validation_there_is_no_best(tmp_path):
    with pytest.warns(UserWarning, match="could not find the monitored key"):
        trainer = fit(TinyModule(), callbacks=both(tmp_path), enable_checkpointing=True, limit_val_batches=0)
    assert best_path(trainer) is None
    assert step_of(tmp_path / "last.ckpt") == 6


def test_training_goes_on_from_last(tmp_path):
    fit(TinyModule(), callbacks=both(tmp_path), enable_checkpointing=True, epochs=1)
    module = TinyModule()
    last = tmp_path / "last.ckpt"
    with pytest.warns(UserWarning, match="exists and is not empty"):
        fit(module, callbacks=both(tmp_path), enable_checkpointing=True, epochs=2, ckpt_path=last)
    assert module.weight.item() == pytest.approx(1 - 0.8**4)
    assert step_of(last) == 4


def test_an_epoch_that_ended_within_is_not_counted(tmp_path):
    """Else an extended training would leave out the rest of its examples."""
    fit(TinyModule(), callbacks=[LastCheckpoint(str(tmp_path))], enable_checkpointing=True, max_steps=3, epochs=-1)
    fit_loop = torch.load(tmp_path / "last.ckpt", weights_only=True)["loops"]["fit_loop"]
    assert fit_loop["epoch_progress"]["current"]["completed"] == 1
    assert fit_loop["epoch_loop.batch_progress"]["current"]["completed"] == 1


def test_last_is_as_old_as_was_asked_for(tmp_path):
    class FailingModule(TinyModule):
        def training_step(self, batch, batch_idx):
            if self.global_step == 5:
                raise RuntimeError("out of luck")
            return super().training_step(batch, batch_idx)

    last = LastCheckpoint(str(tmp_path), every_minutes=None, every_steps=2)
    with pytest.raises(RuntimeError, match="out of luck"):
        fit(FailingModule(), callbacks=[last], enable_checkpointing=True, limit_val_batches=0)
    assert step_of(tmp_path / "last.ckpt") == 4


@pytest.mark.parametrize("option", ["every_minutes", "every_steps"])
def test_never_is_null_and_not_zero(tmp_path, option):
    with pytest.raises(UserError, match=rf"callbacks\.last\.{option}"):
        LastCheckpoint(str(tmp_path), **{option: 0})


def test_early_stopping_ends_a_training_that_gets_no_better():
    trainer = fit(
        TinyModule(accuracies=(0.9, 0.8, 0.7, 0.6, 0.5)),
        epochs=5,
        callbacks=[early_stopping("text_classification", patience=2)],
    )
    assert trainer.current_epoch == 3


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("causal_lm", "val/loss"),
        ("embedding", "val/loss"),
        ("text_classification", "val/accuracy"),
        ("image_classification", "val/accuracy"),
    ],
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
