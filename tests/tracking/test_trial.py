from __future__ import annotations

import builtins
import math
from pathlib import Path

import optuna
import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from hydra_plugins.potstill_optuna._study import begin
from potstill.errors import PrunedError, UserError
from potstill.tracking.trial import PruneTrial, Trial, check_trial, open_trial

SETTINGS = {"directions": ["minimize"], "pruner": "median", "pruner_options": {"n_startup_trials": 1}}


@pytest.fixture
def asked(tmp_path: Path):
    """Asks a study in a journal for its next trial; returns what a run is told of it, and the study."""

    def ask(**settings: object) -> tuple[dict[str, object], optuna.Study]:
        storage = str(tmp_path / "study.journal")
        study = begin(storage, "study", {**SETTINGS, **settings}, tmp_path)
        number = study.ask().number
        return {"storage": storage, "study_name": "study", "number": number}, study

    return ask


class Falling(pl.LightningModule):
    """Its validation loss is `start` less a hundredth of the steps taken."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.weight, self.start = torch.nn.Parameter(torch.zeros(())), start

    def training_step(self, batch: torch.Tensor) -> torch.Tensor:
        return self.weight * batch.mean()

    def validation_step(self, _batch: torch.Tensor) -> None:
        self.log("val/loss", self.start - self.global_step / 100)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(trial: Trial, start: float, num_steps: int = 6) -> None:
    trainer = pl.Trainer(
        accelerator="cpu",
        max_steps=num_steps,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        callbacks=[PruneTrial(trial, "val/loss")],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = DataLoader(torch.ones(6, 1), batch_size=1)  # type: ignore[arg-type]
    trainer.fit(Falling(start), data, DataLoader(torch.ones(1)))  # type: ignore[arg-type]


def test_a_trial_reports_every_validation_under_its_step(asked):
    where, study = asked()
    fit(open_trial(where), start=1.0)
    assert study.trials[0].intermediate_values == pytest.approx({2: 0.98, 4: 0.96, 6: 0.94})


def test_a_trial_that_its_pruner_ends_stops_and_says_with_what(asked):
    for _ in range(2):
        where, study = asked()
        fit(open_trial(where), start=1.0)
        study.tell(where["number"], 0.94)
    where, study = asked()
    with pytest.raises(PrunedError, match="after 2 optimizer steps") as end:
        fit(open_trial(where), start=2.0)
    assert end.value.metrics == pytest.approx({"val/loss": 1.98})
    assert study.trials[2].intermediate_values == pytest.approx({2: 1.98})


def test_a_trial_that_goes_on_reports_no_step_twice(asked):
    where, study = asked()
    fit(open_trial(where), start=1.0, num_steps=4)
    fit(open_trial(where), start=5.0)
    assert study.trials[0].intermediate_values == pytest.approx({2: 0.98, 4: 0.96, 6: 4.94})


def test_how_a_run_ended_is_in_its_trial(asked):
    where, study = asked()
    metrics = {"val/loss": 0.5, "cost/parameters": 10, "train/seconds": math.nan}
    open_trial(where).record(metrics, "finished")
    assert study.trials[0].user_attrs == {"val/loss": 0.5, "cost/parameters": 10.0, "status": "finished"}


@pytest.mark.parametrize("missing", [{"study_name": "other"}, {"number": 7}])
def test_a_trial_that_is_not_there_is_refused(asked, missing):
    where, _ = asked()
    with pytest.raises(UserError, match="names no trial of a study"):
        open_trial({**where, **missing})


def test_without_optuna_the_package_to_install_is_named(asked, monkeypatch):
    where, _ = asked()
    real = builtins.__import__

    def without(name, *rest, **options):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"potstill\[sweeps\]"):
        open_trial(where)


@pytest.mark.parametrize(
    ("settings", "returns", "world_size", "text"),
    [
        ({}, ["val/loss"], 2, "hydra.sweeper.pruner=none"),
        ({}, ["cost/parameters"], 1, "known only at the end"),
        ({}, ["val/accuracy"], 1, "would search for the worst val/accuracy"),
        ({"directions": ["maximize"]}, ["val/loss"], 1, r"directions=\[minimize\]"),
        ({}, ["val/loss", "val/accuracy"], 1, r"directions=\[minimize,maximize\]"),
        ({"directions": ["minimize"] * 2, "pruner": "none"}, ["val/loss"], 1, "one direction for each metric"),
    ],
)
def test_what_a_study_could_not_use_is_refused(asked, settings, returns, world_size, text):
    where, _ = asked(**settings, **({"pruner_options": {}} if "pruner" in settings else {}))
    with pytest.raises(UserError, match=text):
        check_trial(open_trial(where), returns, world_size)


@pytest.mark.parametrize(
    ("settings", "returns", "world_size"),
    [
        ({}, ["val/loss"], 1),
        ({"pruner": "none"}, ["cost/latency_ms_p50"], 2),
        ({"pruner": "none", "directions": ["maximize", "minimize"]}, ["val/accuracy", "cost/parameters"], 1),
    ],
)
def test_what_a_study_can_use_is_not_refused(asked, settings, returns, world_size):
    where, _ = asked(**settings, **({"pruner_options": {}} if "pruner" in settings else {}))
    check_trial(open_trial(where), returns, world_size)
