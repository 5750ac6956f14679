"""The registry: versions of a model, who of them is champion, promotion by hand and rollback."""

from __future__ import annotations

from collections.abc import Callable

from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.models.model import ModelInfo
from mlflow.tracking import MlflowClient

from medtl.errors import MedtlError, ParameterError
from medtl.tracking.bundle import Bundle
from medtl.tracking.card import CardFacts, model_card, version_tags
from medtl.tracking.gate import GateCases, Scores, Verdict, compared, not_compared
from medtl.tracking.models import load_bundle
from medtl.tracking.turns import turn

CHAMPION = "champion"
CHALLENGER = "challenger"
GATE_TAG = "medtl.gate"  # on a version: what the gate, or a hand, last said about it
REIGNS_TAG = "medtl.champions"  # on a registered model: its champions in order, the last reigns
REIGNS_KEPT = 100


def register(model: ModelInfo, facts: CardFacts, model_name: str) -> int:
    """The new version of `model_name`: its card is the description, its numbers are tags.

    Raises:
        ParameterError: MLflow does not take `model_name` as a name.
    """
    client = MlflowClient()
    try:
        client.create_registered_model(model_name)
    except MlflowException as error:
        if error.error_code == "INVALID_PARAMETER_VALUE":
            raise ParameterError("model_name", model_name, "a name without / and :") from error
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        model_name,
        source=model.model_uri,
        run_id=model.run_id,
        model_id=model.model_id,
        tags=version_tags(facts),
        description=model_card(facts, model_name),
    )
    return int(version.version)


def gate(
    model_name: str,
    version: int,
    cases: GateCases,
    score_champion: Callable[[Bundle], Scores],
    confidence: float,
    seed: int,
) -> Verdict:
    """Makes `version` the champion when it is better or first; else it is the challenger.

    A champion of other classes or modalities is not compared, nor is one on cases that one of the
    two has learned from; where nothing is compared, all stays as it is.

    Args:
        model_name: the registered model.
        version: the version to judge; it stays registered whatever the verdict.
        cases: its test cases and its scores on them.
        score_champion: gives a champion's scores on those same cases, in order.
        confidence: what `medtl.tracking.gate.compared` asks of it.
        seed: of the bootstrap.

    Raises:
        ParameterError: there is no such registered model.
        MedtlError: the champion cannot be loaded.
    """
    client = MlflowClient()
    while True:
        champion = _champion(_registered(client, model_name))
        verdict = _judged(model_name, version, champion, cases, score_champion, confidence, seed)
        with turn():
            # Another search may have ended, and crowned its own, while this one was comparing.
            if _champion(_registered(client, model_name)) != champion:
                continue
            if verdict.champion != champion:
                _crown(client, model_name, version)
            elif verdict.contest is not None:
                client.set_registered_model_alias(model_name, CHALLENGER, str(version))
        client.set_model_version_tag(model_name, str(version), GATE_TAG, verdict.reason)
        return verdict


def promote_version(model_name: str, version: int) -> Verdict:
    """Makes `version` the champion by hand, whatever the gate would say.

    Raises:
        ParameterError: there is no such registered model, or no such version of it.
    """
    client = MlflowClient()
    _registered(client, model_name)
    existing = _versions(client, model_name)
    if version not in existing:
        raise ParameterError("version", version, f"one of {', '.join(map(str, existing))}")
    with turn():
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
    with turn():
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
    """The version that is served as `models:/NAME@champion`; None where there is none yet.

    Raises:
        ParameterError: there is no such registered model.
    """
    return _champion(_registered(MlflowClient(), model_name))


def newest_version(model_name: str) -> int:
    """The version of `model_name` that was registered last.

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


def _judged(
    model_name: str,
    version: int,
    champion: int | None,
    cases: GateCases,
    score_champion: Callable[[Bundle], Scores],
    confidence: float,
    seed: int,
) -> Verdict:
    if champion is None:
        return Verdict(version, version, f"version {version} is the first champion")
    if champion == version:
        return _already(version)
    bundle = load_bundle(f"models:/{model_name}/{champion}")
    for what in ("classes", "modalities"):
        own, of_champion = getattr(cases, what), getattr(bundle, what)
        if own != of_champion:
            return not_compared(version, champion, what, own, of_champion)
    return compared(version, champion, cases, score_champion(bundle), confidence, seed)


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
        # the alias was moved elsewhere, in the MLflow UI for one
        reigns.append(champion)
    client.set_registered_model_alias(model_name, CHAMPION, str(version))
    if int(model.aliases.get(CHALLENGER, 0)) == version:
        client.delete_registered_model_alias(model_name, CHALLENGER)
    _remember(client, model_name, [*reigns, version])


def _remember(client: MlflowClient, model_name: str, reigns: list[int]) -> None:
    text = " ".join(map(str, reigns[-REIGNS_KEPT:]))
    client.set_registered_model_tag(model_name, REIGNS_TAG, text)
