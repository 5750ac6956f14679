"""Cross-validated trials: means over the same folds decide which are pruned."""

from __future__ import annotations

import mlflow
import optuna
import pandas as pd
import pytest

from medtl.commands.tune import tune
from medtl.errors import ParameterError
from medtl.settings.search import TuneSettings
from medtl.training.checkpoints import BestFolds, CheckpointHold
from medtl.tuning.fold_pruner import FoldPruner


def reported(study: optuna.Study, means: list[float]) -> int:
    """Runs a trial that reports these means; returns the folds after which it ended."""
    trial = study.ask()
    for number, mean in enumerate(means, start=1):
        trial.report(mean, number)
        if trial.should_prune():
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            return number
    study.tell(trial, means[-1])
    return len(means)


def test_a_trial_is_pruned_by_its_mean_over_the_folds_so_far():
    study = optuna.create_study(direction="maximize", pruner=FoldPruner(2))
    # the first fold is the easiest one
    assert reported(study, [0.9, 0.8, 0.7]) == 3
    assert reported(study, [0.92, 0.84, 0.74]) == 3
    assert reported(study, [0.91, 0.81, 0.73]) == 2
    assert reported(study, [0.8, 0.8, 0.8]) == 1
    assert reported(study, [0.95, 0.9, 0.8]) == 3


class Held(CheckpointHold):
    """Counts its removals."""

    dropped = 0

    def drop(self) -> None:
        self.dropped += 1


def test_the_checkpoints_of_the_best_trial_stay():
    best, holds = BestFolds(), [Held() for _ in range(3)]
    best.keep(holds[0], 0.7, best=0.0)
    best.keep(holds[1], 0.6, best=0.7)
    assert [each.dropped for each in holds] == [0, 1, 0]
    best.keep(holds[2], 0.8, best=0.7)
    assert [each.dropped for each in holds] == [1, 1, 0]
    best.release(0.8)
    assert holds[2].dropped == 0
    best.release(0.9)
    assert holds[2].dropped == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"holdout": 0.0}, "holdout=0.0 is not allowed: above 0: the folds choose"),
        ({"pruner": "hyperband"}, "pruner=hyperband is not allowed: median or none with folds"),
        ({"executor": "ray"}, "executor=ray is not allowed: local with folds"),
    ],
)
def test_what_does_not_go_with_folds_is_refused(settings, said):
    with pytest.raises(ParameterError, match=said):
        TuneSettings(folds=3, **settings)


@pytest.mark.slow
def test_a_search_chooses_by_the_mean_over_folds_and_tests_the_ensemble(small_phantoms, capfd):
    tune(
        TuneSettings(
            data=str(small_phantoms), architecture="small_resnet", weights="random",
            image_size=32, epochs=2, views=1, folds=3, trials=3, cutoffs="layer4,head",
        )
    )  # fmt: skip
    found = mlflow.search_runs(search_all_experiments=True)
    (run,) = (each for _, each in found.iterrows() if each["tags.medtl.kind"] == "tune")
    trials = found[found["tags.medtl.kind"] == "trial"]
    best = trials["metrics.best_valid_auroc"].max()
    assert run["metrics.best_valid_auroc"] == best
    assert run["metrics.cv_auroc_fold_mean"] == pytest.approx(best, abs=0.02)
    assert (trials["metrics.valid_auroc_std"] > 0).all()
    place = mlflow.artifacts.download_artifacts(f"runs:/{run['run_id']}/search/trials.csv")
    table = pd.read_csv(place)
    assert {"score", "std"} <= set(table)
    assert run["metrics.test_auroc"] > 0
    said = capfd.readouterr()
    assert "mean AUROC of 3 folds" in said.out
    assert "was chosen by its out-of-fold scores" in said.out
    assert said.err.count("a finished training of 2 epochs is reused") == 3
