"""Interactive plots of a finished search: Optuna's own, in one page that needs no network."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from medtl.reporting.html import render
from medtl.tuning.search_space import AnySpace

HEIGHT = "460px"  # of a figure


@dataclass(frozen=True)
class _Figure:
    """Figure of the page: `html` is a part of a page that plotly's library draws."""

    title: str
    caption: str
    html: str


def plots_page(study: optuna.Study, space: AnySpace, metric: str) -> str:
    """Returns a page of about 5 MB (most of it is plotly's library) with the plots of a search.

    `metric` names the score of a trial.
    """
    # both take a second to import
    from optuna import visualization as drawn
    from plotly.offline import get_plotlyjs

    named = named_study(study, space)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        figures = [
            (
                "History",
                "The score of each complete trial, and the best so far.",
                drawn.plot_optimization_history(named, target_name=metric),
            ),
            (
                "Each parameter",
                "The score against each parameter; a later trial is darker. Cut-offs are in "
                "forward order: from the first on, all layers are trained.",
                drawn.plot_slice(named, target_name=metric),
            ),
            (
                "All parameters together",
                "A line a complete trial, darker for a better score.",
                drawn.plot_parallel_coordinate(named, target_name=metric),
            ),
            (
                "During training",
                "The validation AUROC at each tenth of a trial's epochs; pruned trials end early. "
                "A solved head has its last value only.",
                drawn.plot_intermediate_values(named),
            ),
        ]
    for _, _, figure in figures:
        figure.update_layout(title=None, template="plotly_white", margin={"t": 20})
    figures[-1][-1].update_layout(xaxis_title="tenth of the epochs", yaxis_title=metric)
    return render(
        "search_plots.html.jinja",
        title=f"Plots of {study.study_name}",
        library=get_plotlyjs(),
        figures=[
            _Figure(
                title,
                caption,
                figure.to_html(full_html=False, include_plotlyjs=False, default_height=HEIGHT),
            )
            for title, caption, figure in figures
        ],
    )


def named_study(study: optuna.Study, space: AnySpace) -> optuna.Study:
    """Returns a copy in memory whose parameters are those of the candidates.

    The depth is replaced by the cut-off, a category in forward order. Trials without parameters or
    that have not ended are left out.
    """
    copy = optuna.create_study(direction="maximize", study_name=study.study_name)
    drawn = space.distributions()
    ended = [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.is_finished() and trial.params.keys() == drawn.keys()
    ]
    candidates = [space.candidate(trial.params).params() for trial in ended]
    names = list(dict.fromkeys(name for each in candidates for name in each))
    kinds: dict[str, BaseDistribution] = {}
    for name in names:
        if name == "cutoff":
            kinds[name] = CategoricalDistribution(space.cutoffs)
        elif name in drawn:
            kinds[name] = drawn[name]
        else:
            kinds[name] = CategoricalDistribution(sorted({each[name] for each in candidates}))
    for trial, params in zip(ended, candidates, strict=True):
        copy.add_trial(_renamed(trial, params, kinds))
    return copy


def _renamed(
    trial: FrozenTrial, params: dict[str, str | int | float], kinds: dict[str, BaseDistribution]
) -> FrozenTrial:
    return create_trial(
        state=trial.state,
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        params=params,
        distributions=kinds,
        intermediate_values=trial.intermediate_values,
    )
