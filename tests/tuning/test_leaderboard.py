"""Live leaderboard and interactive plots of a search."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path

import mlflow
import pytest

from medtl.tracking.addresses import run_address
from medtl.training.loop import Epoch
from medtl.tuning import leaderboard
from medtl.tuning import study as studies
from medtl.tuning.interactive_plots import named_study, plots_page
from medtl.tuning.leaderboard import Leaderboard
from medtl.tuning.search_space import Space
from medtl.tuning.storage import open_store
from medtl.tuning.study import Schedule

SPACE = Space(("adam", "sgd"), 1e-4, 1e-2, ("conv1", "layer1", "<fc>"))
SCHEDULE = Schedule(trials=6, timeout=0, pruner="median", seed=3)


@pytest.fixture
def study(tmp_path):
    store = open_store(f"sqlite:///{tmp_path / 'optuna.db'}")
    return studies.open_study(store, "a <study>", True, "asks", SCHEDULE)


def trained(trial, candidate):
    value = SPACE.cutoffs.index(candidate.cutoff) / 10 + 0.5
    for number in (1, 2, 3, 4):
        at_epoch = value * number / 4
        studies.report(trial, Epoch(number, 0.0, 0.0, 0.0, at_epoch, 0.0, 0.0, number / 4))
    return value


def test_the_page_follows_the_trials_of_a_running_search(study, tmp_path, monkeypatch):
    monkeypatch.setattr(leaderboard, "PAUSE", 0.0)
    with mlflow.start_run() as run:
        pass
    board = Leaderboard(study, SPACE, SCHEDULE.trials, run.info.run_id)
    page, seen = Path(board.address), []

    def objective(trial, candidate):
        trial.set_user_attr(studies.RUN_ID, f"run{trial.number}")
        board.update()
        text = page.read_text()
        assert "location.reload()" in text
        assert run_address(run.info.experiment_id, f"run{trial.number}") in text
        rows = re.findall(r'<tr class="(\w+)[ "]', text)
        assert rows.count("running") == 1
        assert len(rows) == trial.number + 1
        seen.append(trial.number)
        return trained(trial, candidate)

    studies.run_trials(study, SPACE, SCHEDULE, objective)
    board.close()
    text = page.read_text()
    assert "location.reload()" not in text
    assert f"best {study.best_value:.4f} (trial {study.best_trial.number})" in text
    ranked = re.findall(r'<tr class="(\w+)( best)?"><td data-order="(\d+)">', text)
    assert ranked[0] == ("complete", " best", str(study.best_trial.number))
    assert len(ranked) == len(study.trials)
    assert "a &lt;study&gt;" in text
    assert "<fc>" not in text
    # cut-offs sort in forward order
    for trial in study.trials:
        cutoff = SPACE.candidate(trial.params).cutoff
        assert f'data-order="{SPACE.cutoffs.index(cutoff)}">{escape(cutoff)}</td>' in text
    assert list(page.parent.iterdir()) == [page]


def test_the_page_is_rewritten_at_intervals_and_by_the_leader_only(study, monkeypatch):
    monkeypatch.setattr(leaderboard, "PAUSE", 600.0)
    with mlflow.start_run() as run:
        pass
    follows = Leaderboard(study, SPACE, 6, run.info.run_id, lambda: False)
    follows.update()
    follows.close()
    page = Path(follows.address)
    assert not page.exists()
    board = Leaderboard(study, SPACE, 6, run.info.run_id)
    board.update()
    first = page.read_text()
    studies.run_trials(study, SPACE, SCHEDULE, trained)
    board.update()  # too soon
    assert page.read_text() == first
    board.close()
    assert page.read_text() != first


def test_interactive_plots_name_cut_offs_and_need_no_network(study):
    studies.run_trials(study, SPACE, SCHEDULE, trained)
    named = named_study(study, SPACE)
    assert [each.value for each in named.trials] == [
        each.value if each.state.name == "COMPLETE" else None for each in study.trials
    ]
    for own, renamed in zip(study.trials, named.trials, strict=True):
        assert renamed.params == SPACE.candidate(own.params).params()
    page = plots_page(study, SPACE, "validation AUROC")
    assert "validation AUROC" in page
    assert not re.findall(r'<(?:script|link)[^>]+(?:src|href)="', page)
    assert page.count('class="plotly-graph-div"') == 4
