"""Model registry: versions, champion, promotion by hand, rollback."""

from __future__ import annotations

from collections.abc import Callable

import mlflow
from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models.model import ModelInfo
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError, ParameterError, masked_value, without_secrets
from medtl.evaluation.scored_cases import has_findings
from medtl.inference.predictor import Predictor
from medtl.reporting.model_card import CardFacts, model_card, shortened, version_tags
from medtl.tracking.alias_lock import alias_lock
from medtl.tracking.alpha_spending import Look, next_look
from medtl.tracking.logged_model import check_files, load_bundle
from medtl.tracking.promotion_gate import (
    Contest,
    GateCases,
    Scores,
    Verdict,
    compared,
    fair_cases,
    not_compared,
    percent,
    refusal,
)
from medtl.tracking.run_ownership import PARENT_TAG
from medtl.tracking.runs import SUCCESSOR_TAG, TEXT_LIMIT
from medtl.tracking.store import check_may_change, check_opens

CHAMPION = "champion"
CHALLENGER = "challenger"
GATE_TAG = "medtl.gate"  # on a version: its last verdict, by the gate or by hand
LOOK_TAG = "medtl.look"  # on a version: the number of its look; 0 without a comparison
DATA_TAG = "medtl.data"  # on a version: the fingerprint of its data
REIGNS_TAG = "medtl.champions"  # on a registered model: its champions in order, the last reigns
REIGNS_KEPT = 100


def register(model: ModelInfo, facts: CardFacts, model_name: str) -> int:
    """Registers a new version of `model_name`, with its card as description and numbers as tags.

    Returns the existing version if an interrupted run has already registered the same model.

    Raises:
        ParameterError: `model_name` is not a valid name for MLflow.
    """
    client = MlflowClient()
    try:
        client.create_registered_model(model_name)
    except MlflowException as error:
        if error.error_code == "INVALID_PARAMETER_VALUE":
            raise ParameterError("model_name", model_name, "a name without / and :") from error
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = version_tags(facts)
    left = _left_by_predecessor(client, model_name, model.run_id, tags)
    if left is not None:
        return left
    version = client.create_model_version(
        model_name,
        source=model.model_uri,
        run_id=model.run_id,
        model_id=model.model_id,
        tags=tags,
        description=shortened(model_card(facts, model_name), TEXT_LIMIT),
    )
    return int(version.version)


def gate(
    model_name: str,
    version: int,
    cases: GateCases,
    score_champion: Callable[[Predictor], Scores],
    confidence: float,
    seed: int,
) -> Verdict:
    """Makes `version` the champion if it is better or first, else the challenger.

    A champion of other classes, modalities or labels is not compared, and cases in either training
    record are left out; without a comparison the champion stays. Each comparison is a look at the
    test split, recorded with the registered model; repeated comparisons of two versions on the same
    cases are one look.

    Args:
        model_name: the registered model.
        version: version to test; it stays registered with any verdict.
        cases: its test cases and its scores on them.
        score_champion: function that scores a champion on the same cases, in order.
        confidence: as in `medtl.tracking.promotion_gate.compared`.
        seed: seed of the intervals.

    Raises:
        ParameterError: there is no such registered model.
        MedtlError: the champion cannot be loaded.
    """
    client = MlflowClient()
    scored: dict[int, Scores | Verdict] = {}
    while True:
        champion = _champion(_registered(client, model_name))
        found, look = None, None
        if champion is None or champion == version:
            verdict = _without_comparison(version, champion)
        else:
            if champion not in scored:
                scored[champion] = _scored(model_name, version, champion, cases, score_champion)
            found = scored[champion]
            if isinstance(found, Scores):
                look = _look(client, model_name, version, champion, cases, found)
                verdict = compared(version, champion, cases, found, confidence, look.number, seed)
            else:
                verdict = found
        with alias_lock(model_name):
            # Another search may have recorded a look or changed the champion in the meantime.
            if _champion(_registered(client, model_name)) != champion:
                continue
            if look is not None and champion is not None and isinstance(found, Scores):
                if look != _look(client, model_name, version, champion, cases, found):
                    continue
                client.set_registered_model_tag(model_name, look.tag, look.text)
            if verdict.champion != champion:
                _crown(client, model_name, version)
            elif verdict.contest is not None:
                client.set_registered_model_alias(model_name, CHALLENGER, str(version))
        _note_verdict(client, model_name, verdict)
        return verdict


def promote_version(model_name: str, version: int) -> Verdict:
    """Makes `version` the champion without the gate.

    Raises:
        ParameterError: there is no such registered model, or no such version of it.
    """
    client = MlflowClient()
    _registered(client, model_name)
    existing = _versions(client, model_name)
    if version not in existing:
        raise ParameterError("version", version, f"one of {', '.join(map(str, existing))}")
    with alias_lock(model_name):
        champion = _champion(_registered(client, model_name))
        if champion == version:
            return _already(version)
        _crown(client, model_name, version)
    before = "there was none before" if champion is None else f"before it was version {champion}"
    reason = f"version {version} was made champion by hand; {before}"
    client.set_model_version_tag(model_name, str(version), GATE_TAG, reason)
    return Verdict(version, version, reason, champion)


def rollback(model_name: str) -> Verdict:
    """Makes the previous champion the champion again; repeated, it goes back further.

    Raises:
        ParameterError: there is no such registered model.
        MedtlError: there is no previous champion.
    """
    client = MlflowClient()
    _registered(client, model_name)
    with alias_lock(model_name):
        model = _registered(client, model_name)
        champion, reigns = _champion(model), _reigns(model)
        if champion in reigns:
            reigns = reigns[: len(reigns) - 1 - reigns[::-1].index(champion)]
        existing = _versions(client, model_name)
        reigns = [version for version in reigns if version in existing and version != champion]
        if not reigns:
            raise MedtlError(
                f"{model_name} has no previous champion to go back to; promote a version by hand, "
                f"one of {', '.join(map(str, existing))}"
            )
        client.set_registered_model_alias(model_name, CHAMPION, str(reigns[-1]))
        _remember(client, model_name, reigns)
    reason = f"version {reigns[-1]} is the champion again, in place of version {champion}"
    client.set_model_version_tag(model_name, str(reigns[-1]), GATE_TAG, reason)
    return Verdict(reigns[-1], reigns[-1], reason, champion)


def champion_version(model_name: str) -> int | None:
    """Returns the version with the alias `champion`, None if there is none yet.

    Raises:
        ParameterError: there is no such registered model.
    """
    return _champion(_registered(MlflowClient(), model_name))


def newest_version(model_name: str) -> int:
    """Returns the version of `model_name` that was registered last.

    Raises:
        ParameterError: there is no such registered model.
        MedtlError: it has no version.
    """
    client = MlflowClient()
    _registered(client, model_name)
    versions = _versions(client, model_name)
    if not versions:
        raise MedtlError(f"{model_name} has no version; train and register one first")
    return versions[-1]


def _left_by_predecessor(
    client: MlflowClient, model_name: str, run_id: str, tags: dict[str, str]
) -> int | None:
    """Returns the version with these tags that an interrupted predecessor of `run_id` registered.

    Such a run was interrupted between the registration of its model and the end of the search.
    """
    goes_on = {run_id, client.get_run(run_id).data.tags.get(PARENT_TAG)}
    for version in client.search_model_versions(f'name="{model_name}"'):
        if tags.items() <= version.tags.items() and version.run_id != run_id:
            successor = version.run_id
            while successor is not None and successor not in goes_on:
                successor = client.get_run(successor).data.tags.get(SUCCESSOR_TAG)
            if successor is not None:
                return int(version.version)
    return None


def _scored(
    model_name: str,
    version: int,
    champion: int,
    cases: GateCases,
    score_champion: Callable[[Predictor], Scores],
) -> Scores | Verdict:
    """Scores the cases with the champion; returns a verdict if it cannot be compared."""
    bundle = load_bundle(f"models:/{model_name}/{champion}")
    if has_findings(cases.labels) != bundle.multi_label:
        kinds = {True: ("any number an image",), False: ("one an image",)}
        own, of_champion = kinds[not bundle.multi_label], kinds[bundle.multi_label]
        return not_compared(version, champion, "labels", own, of_champion)
    for what in ("classes", "modalities"):
        own, of_champion = getattr(cases, what), getattr(bundle, what)
        if own != of_champion:
            return not_compared(version, champion, what, own, of_champion)
    scores = score_champion(bundle)
    reason = refusal(version, champion, cases, scores)
    return Verdict(version, champion, reason, champion) if reason else scores


def _without_comparison(version: int, champion: int | None) -> Verdict:
    if champion is None:
        return Verdict(version, version, f"version {version} is the first champion")
    return _already(version)


def _look(
    client: MlflowClient,
    model_name: str,
    version: int,
    champion: int,
    cases: GateCases,
    champion_scores: Scores,
) -> Look:
    """Returns the look of this comparison by the present record."""
    tags = _registered(client, model_name).tags
    codes = cases.codes[fair_cases(cases, champion_scores)]
    unrecorded = _unrecorded_looks(client, model_name, version)
    return next_look(tags, version, champion, codes, unrecorded)


def _unrecorded_looks(client: MlflowClient, model_name: str, version: int) -> int:
    """Counts possible looks of versions on the same data before looks were recorded.

    One per version, except the first, which had no champion or one on other data.
    """
    versions = client.search_model_versions(f'name="{model_name}"')
    data = next(each.tags.get(DATA_TAG) for each in versions if int(each.version) == version)
    old = [
        each
        for each in versions
        if GATE_TAG in each.tags and LOOK_TAG not in each.tags and each.tags.get(DATA_TAG) == data
    ]
    return len([each for each in old if int(each.version) != version][1:])


def _note_verdict(client: MlflowClient, model_name: str, verdict: Verdict) -> None:
    """Records the verdict on a version, and its selection in its card."""
    version, contest = str(verdict.version), verdict.contest
    tags = client.get_model_version(model_name, version).tags
    look = tags.get(LOOK_TAG, "0") if contest is None else str(contest.look)
    client.set_model_version_tag(model_name, version, LOOK_TAG, look)
    if contest is not None and verdict.promoted:
        card = client.get_model_version(model_name, version).description or ""
        line = _chosen_at(contest)
        if line not in card:
            client.update_model_version(model_name, version, f"{card}{line}\n")
    client.set_model_version_tag(model_name, version, GATE_TAG, verdict.reason)


def _chosen_at(contest: Contest) -> str:
    """Formats the last line of a card, on the optimism of a champion's scores."""
    return (
        f"- Made champion at look {contest.look} at this test split: the lower bound, at "
        f"{percent(contest.asked)}, of its gain in AUROC is above 0. Scores that selected a model "
        "are optimistic, more so after more looks; an unbiased score needs new cases."
    )


def _already(version: int) -> Verdict:
    return Verdict(version, version, f"version {version} is the champion already", version)


def _registered(client: MlflowClient, model_name: str) -> RegisteredModel:
    try:
        return client.get_registered_model(model_name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        names = ", ".join(model.name for model in client.search_registered_models(max_results=20))
        raise ParameterError(
            "model_name", model_name, f"a registered model, here {names or 'none yet'}"
        ) from error


def _champion(model: RegisteredModel) -> int | None:
    version = model.aliases.get(CHAMPION)
    return None if version is None else int(version)


def _reigns(model: RegisteredModel) -> list[int]:
    return [int(version) for version in model.tags.get(REIGNS_TAG, "").split()]


def _versions(client: MlflowClient, model_name: str) -> list[int]:
    found = client.search_model_versions(f'name="{model_name}"')
    return sorted(int(version.version) for version in found)


def _crown(client: MlflowClient, model_name: str, version: int) -> None:
    model = _registered(client, model_name)
    champion, reigns = _champion(model), _reigns(model)
    if champion is not None and reigns[-1:] != [champion]:
        # the alias was moved by other means, such as the MLflow UI
        reigns.append(champion)
    # in this order: a process killed in between leaves no version with both aliases
    if int(model.aliases.get(CHALLENGER, 0)) == version:
        client.delete_registered_model_alias(model_name, CHALLENGER)
    client.set_registered_model_alias(model_name, CHAMPION, str(version))
    _remember(client, model_name, [*reigns, version])


def _remember(client: MlflowClient, model_name: str, reigns: list[int]) -> None:
    text = " ".join(map(str, reigns[-REIGNS_KEPT:]))
    client.set_registered_model_tag(model_name, REIGNS_TAG, text)


def check_registry(model_name: str) -> None:
    """Checks that a registered model can get a version, and that its champion can be loaded.

    Reads only the list of the champion's files.

    Raises:
        MedtlError: no response from the registry, no permission to change the model, or missing
            files of the champion.
    """
    check_opens(mlflow.get_registry_uri(), "the registry", "MLFLOW_REGISTRY_URI")
    check_may_change(model_name)
    try:
        champion = MlflowClient().get_registered_model(model_name).aliases.get(CHAMPION)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return
        uri = mlflow.get_registry_uri()
        reason = without_secrets(" ".join(str(error).split()), uri)[:300]
        raise MedtlError(
            f"the registry {masked_value(uri)} does not answer ({reason}); set "
            "MLFLOW_REGISTRY_URI, or unset it to take the tracking store"
        ) from error
    if champion is None:
        return
    try:
        check_files(f"models:/{model_name}/{champion}")
    except MedtlError as error:
        raise MedtlError(
            f"the new model could not be compared with the champion of {model_name}: {error}; put "
            "its files back, make another version the champion with promote, or give another "
            "model_name"
        ) from error
