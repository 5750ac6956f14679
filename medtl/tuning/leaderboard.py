"""Live leaderboard of a search: a page in its run, rewritten while trials begin and end."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

import optuna
from mlflow.tracking import MlflowClient
from optuna.trial import FrozenTrial, TrialState

from medtl.progress import in_words
from medtl.reporting.leaderboard import TrialRow, leaderboard_page
from medtl.tracking.addresses import artifact_address, run_address, ui_command
from medtl.tracking.artifacts import replace_text
from medtl.tuning import study as studies
from medtl.tuning.search_result import STATES
from medtl.tuning.search_space import AnySpace

PLACE = "search/leaderboard.html"
PAUSE = 2.0  # seconds between two versions of the page, at least


class Leaderboard:
    """Page of the trials of a study in the MLflow run that leads the search."""

    def __init__(
        self,
        study: optuna.Study,
        space: AnySpace,
        trials: int,
        run_id: str,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        """Writes nothing yet.

        Args:
            study: of the search.
            space: of its parameters.
            trials: of the whole study, planned.
            run_id: the run that has the page.
            leads: returns whether this process leads the search; the others write no page.
        """
        self._study, self._space, self._trials, self._leads = study, space, trials, leads
        self._run = MlflowClient().get_run(run_id)
        self._began, self._finished_before = time.monotonic(), len(studies.finished(study))
        self._shown: list[tuple[int, TrialState]] | None = None
        self._written = float("-inf")

    @property
    def address(self) -> str:
        """File of the page, or its address on a tracking server."""
        return artifact_address(self._run, PLACE)

    def update(self) -> None:
        """Rewrites the page if a trial has begun or ended, at most every two seconds."""
        if time.monotonic() - self._written < PAUSE or not self._leads():
            return
        states = [(each.number, each.state) for each in self._study.get_trials(deepcopy=False)]
        if states != self._shown:
            self._shown = states
            self._write(running=True)

    def close(self) -> None:
        """Writes the page of a finished search, which no longer reloads itself."""
        if self._leads():
            self._write(running=False)

    def _write(self, running: bool) -> None:
        page = leaderboard_page(
            f"Search {self._study.study_name}",
            self._status(running),
            self._rows(),
            self._space.cutoffs,
            self.address,
            ui_command(),
            running,
        )
        replace_text(self._run, page, PLACE)
        self._written = time.monotonic()

    def _status(self, running: bool) -> str:
        """Formats how far the search is, its best score and the time left at its pace so far."""
        done = len(studies.finished(self._study))
        parts = [f"{done} of {self._trials} trials finished"]
        if studies.completed(self._study):
            best = self._study.best_trial
            parts.append(f"best {studies.score_of(best):.4f} (trial {best.number})")
        left, new = self._trials - done, done - self._finished_before
        if running and left > 0 and new > 0:
            pace = (time.monotonic() - self._began) / new
            parts.append(f"about {in_words(left * pace)} left")
        parts.append(f"written {datetime.now().astimezone():%Y-%m-%d %H:%M:%S %Z}")
        return "; ".join(parts) + "."

    def _rows(self) -> list[TrialRow]:
        drawn = self._space.distributions().keys()
        return [
            self._row(each)
            for each in self._study.get_trials(deepcopy=False)
            if each.state != TrialState.WAITING and each.params.keys() == drawn
        ]

    def _row(self, trial: FrozenTrial) -> TrialRow:
        seen, run_id = trial.intermediate_values, trial.user_attrs.get(studies.RUN_ID)
        last = seen[max(seen)] if seen else None
        return TrialRow(
            trial.number,
            STATES.get(trial.state, "running"),
            last if trial.value is None else trial.value,
            self._space.candidate(trial.params).params(),
            None if trial.duration is None else trial.duration.total_seconds(),
            trial.user_attrs.get(studies.ERROR) or trial.user_attrs.get("why", ""),
            run_address(self._run.info.experiment_id, run_id) if run_id else "",
        )
