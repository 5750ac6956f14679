"""A search that chooses the architecture too: two tiny networks on small phantoms."""

from __future__ import annotations

import contextlib
import gc
import io
import re
import shutil
import weakref
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from safetensors.torch import save_file

from medtl.commands.tune import tune
from medtl.data.sources.phantoms.datasets import write_chest_phantoms
from medtl.errors import ParameterError
from medtl.networks.registry import build
from medtl.settings.search import TuneSettings
from medtl.tuning.backbone_pool import OPEN, BackbonePool
from medtl.tuning.cutoff_dictionary import known_entries

QUICK = {
    "architecture": "shufflenet_v2_x0_5, small_resnet",
    "weights": "random",
    "image_size": 32,
    "epochs": 1,
    "augment": "none",
    "optimizers": "adam",
}
NAMED = "stage4.0,layer3,head"  # a layer of the one, a layer of the other, the head of both


def runs(kind: str) -> pd.DataFrame:
    return mlflow.search_runs(
        search_all_experiments=True, filter_string=f"tags.`medtl.kind` = '{kind}'"
    )


@pytest.fixture(scope="module")
def clinic(tmp_path_factory) -> Path:
    """The CSV of 36 phantom patients at 32 px, about 100 images."""
    folder = tmp_path_factory.mktemp("phantoms") / "clinic"
    folder.mkdir()
    write_chest_phantoms(folder, seed=3, patients=36, image_size=32)
    return folder / "labels.csv"


@pytest.fixture(scope="module")
def searched(clinic, empty_store, tmp_path_factory) -> tuple[Path, str]:
    """A folder with the stores of a finished search of four trials, and what it printed."""
    folder = tmp_path_factory.mktemp("searched")
    shutil.copy(empty_store, folder / "mlflow.db")
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(printed):
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("MEDTL_CACHE", str(folder / "cache"))
        tune(TuneSettings(data=str(clinic), **QUICK, cutoffs=NAMED, trials=4))
    return folder, printed.getvalue()


@pytest.fixture
def tuned(searched, own_folders, tmp_path) -> str:
    """What the finished search printed; the test has copies of its stores."""
    folder, printed = searched
    for store in folder.glob("*.db*"):
        shutil.copy(store, tmp_path)
    return printed


def test_each_architecture_has_trials_a_probe_pictures_and_an_entry(tuned):
    line = "search        4 trials, about .* on this machine .*; trials=N or timeout=SECONDS bounds"
    assert re.search(line, tuned)
    line = "time          .*data and networks .*, layer probe .*, trials .*; slowest trial [0-3] "
    assert re.search(line, tuned)
    parent, trials = runs("tune").iloc[0], runs("trial")
    table = pd.read_csv(
        mlflow.artifacts.download_artifacts(f"runs:/{parent['run_id']}/search/trials.csv")
    ).sort_values("number")
    tagged = trials.sort_values("tags.medtl.trial")
    for column in ("architecture", "cutoff"):
        assert list(table[column]) == list(tagged[f"tags.medtl.{column}"])
    own = {"shufflenet_v2_x0_5": {"stage4.0", "fc"}, "small_resnet": {"layer3", "fc"}}
    assert list(table["architecture"])[:2] == list(own)
    for architecture, cutoffs in own.items():
        assert set(table.loc[table["architecture"] == architecture, "cutoff"]) <= cutoffs
        assert f"tried early   {architecture} " in tuned
        folder = f"search/{architecture}"
        found = {item.path for item in MlflowClient().list_artifacts(parent["run_id"], folder)}
        assert f"{folder}/layer_probe.csv" in found
        assert f"{folder}/score_against_cutoff.png" in found
    entries = known_entries()
    best = table.groupby("architecture")["score"].max()
    assert {each.architecture: each.valid_auroc for each in entries} == pytest.approx(dict(best))
    assert all(set(each.recipe) == {"optimizer", "lr"} for each in entries)


def test_the_best_of_all_is_the_one_that_is_refitted_and_registered(tuned):
    parent, trials = runs("tune").iloc[0], runs("trial")
    best = trials.loc[trials["metrics.best_valid_auroc"].idxmax()]
    assert parent["metrics.best_valid_auroc"] == best["metrics.best_valid_auroc"]
    version = MlflowClient().get_model_version_by_alias("medtl-clinic", "champion")
    for tag in ("medtl.architecture", "medtl.weights", "medtl.cutoff"):
        assert parent[f"tags.{tag}"] == best[f"tags.{tag}"]
    assert version.tags["medtl.architecture"] == best["tags.medtl.architecture"]
    assert parent["tags.medtl.study"] == "clinic-shufflenet_v2_x0_5-small_resnet-random"


def test_the_question_is_known_again_and_any_other_is_another(clinic):
    asked = {"data": str(clinic), **QUICK, "cutoffs": NAMED}
    other = {"architecture": "small_resnet, shufflenet_v2_x0_5"}
    keys = []
    for more in ({}, {"trials": 40, "model_name": "mine"}, other):
        with mlflow.start_run():
            mlflow.set_tag("medtl.kind", "tune")
            keys.append(BackbonePool.open(TuneSettings(**{**asked, **more})).fingerprint)
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.slow
def test_the_question_does_not_hang_on_how_the_path_is_written_or_what_is_allowed(
    clinic, tmp_path, monkeypatch
):
    asked = {"architecture": "small_resnet", "weights": "random", "image_size": 32}
    (tmp_path / "link").symlink_to(clinic.parent)
    monkeypatch.chdir(clinic.parent)
    monkeypatch.setenv("HOME", str(clinic.parent))
    places = (str(clinic), clinic.name, f"{clinic.parent}//{clinic.name}", f"~/{clinic.name}",
              str(tmp_path / "link" / clinic.name))  # fmt: skip
    allowed = ({"outside": "allow"}, {"duplicates": "allow"}, {"unreadable": "skip"})
    keys = []
    with mlflow.start_run():
        mlflow.set_tag("medtl.kind", "tune")
        for more in (*({"data": place} for place in places), *allowed, {"epochs": 3}):
            keys.append(
                BackbonePool.open(
                    TuneSettings(**{"data": str(clinic), **asked, **more})
                ).fingerprint
            )
    *same, other = keys
    assert set(same) == {keys[0]}
    assert other != keys[0]


@pytest.mark.slow
def test_a_hybrid_search_tries_every_cutoff_of_every_architecture_once(clinic):
    tune(TuneSettings(data=str(clinic), **QUICK, cutoffs=NAMED, transfer="hybrid", trials=9))
    trials = runs("trial")
    tried = sorted(zip(trials["tags.medtl.architecture"], trials["params.cutoff"], strict=True))
    assert tried == [
        ("shufflenet_v2_x0_5", "fc"),
        ("shufflenet_v2_x0_5", "stage4.0"),
        ("small_resnet", "fc"),
        ("small_resnet", "layer3"),
    ]
    assert len(known_entries()) == 2


def test_few_networks_are_in_memory_each_at_its_own_size(clinic):
    names = ("small_resnet", "shufflenet_v2_x0_5", "parallel_cnn")
    asked = {"weights": "random", "cutoffs": "head", "architecture": ",".join(names)}
    with mlflow.start_run() as run:
        mlflow.set_tag("medtl.kind", "tune")
        backbone_pool = BackbonePool.open(TuneSettings(data=str(clinic), **asked))
        backbone_pool.note()
        first, *_, last = backbone_pool.all
        small = backbone_pool.transfer(first)
        assert small.dataset.images(small.dataset.splits["valid"]).shape[-1] == 96
        digest, network = small.backbone.digest(), weakref.ref(small.backbone.network)
        del small
        large = backbone_pool.transfer(last)
        assert large.dataset.images(large.dataset.splits["valid"]).shape[-1] == 224
        assert large.dataset.fingerprint == backbone_pool.dataset.fingerprint
        for each in backbone_pool.all[-OPEN:]:
            backbone_pool.transfer(each)
        gc.collect()
        assert network() is None
        assert backbone_pool.transfer(first).backbone.digest() == digest
    tags = MlflowClient().get_run(run.info.run_id).data.tags
    assert tags["medtl.architecture"] == ", ".join(names)


@pytest.fixture
def weights_file(tmp_path) -> Path:
    """Weights of a small_resnet of another seed."""
    file = tmp_path / "own.safetensors"
    save_file(build("small_resnet", 3, 32, seed=5).state_dict(), file)
    return file


def test_sources_of_weights_compete_with_every_architecture_that_they_fit(
    clinic, weights_file, capsys
):
    asked = {**QUICK, "weights": f"random,{weights_file}", "cutoffs": "layer4,stage4.0,head"}
    tune(TuneSettings(data=str(clinic), **asked, trials=4, pruner="none"))
    printed = capsys.readouterr().out
    own = weights_file.name
    assert re.search(
        f"left out +shufflenet_v2_x0_5 with weights {weights_file}: .*does not", printed
    )
    for pair in ("shufflenet_v2_x0_5, random", "small_resnet, random", f"small_resnet, {own}"):
        assert f"tried early   {pair} " in printed
    parent, trials = runs("tune").iloc[0], runs("trial")
    assert set(zip(trials["params.architecture"], trials["params.weights"], strict=True)) == {
        ("shufflenet_v2_x0_5", "random"), ("small_resnet", "random"), ("small_resnet", own),
    }  # fmt: skip
    place = mlflow.artifacts.download_artifacts(f"runs:/{parent['run_id']}/search/sources.csv")
    table = pd.read_csv(place)
    assert set(table["weights"]) == {"random", own}
    best = trials.groupby("params.weights")["metrics.best_valid_auroc"].max()
    for _, row in table.iterrows():
        assert row["valid_auroc"] == pytest.approx(best[row["weights"]])
        assert row["behind"] == pytest.approx(best.max() - best[row["weights"]], abs=1e-4)
        assert row["behind_low"] <= row["behind"] <= row["behind_high"]
        assert 0 <= row["probe_auroc"] <= 1
    assert table["trials"].sum() == len(trials)
    assert f"sources       weights {table['weights'][0]} are the best on validation" in printed
    assert re.search(r"sources +the validation split also chose", printed)
    card = mlflow.artifacts.load_text(f"runs:/{parent['run_id']}/model_card.md")
    assert "does not fit shufflenet" in card
    assert "are the best on validation" in card
    assert parent["tags.medtl.study"].endswith(f"random-{own}")
    assert len(known_entries()) == 3


def test_sources_are_named_apart_and_the_key_of_the_search_has_each_of_them(
    clinic, weights_file, tmp_path
):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / weights_file.name
    save_file(build("small_resnet", 3, 32, seed=6).state_dict(), other)
    copy = shutil.copy(weights_file, tmp_path / "copy.safetensors")
    asked = {**QUICK, "data": str(clinic), "architecture": "small_resnet", "cutoffs": "head"}
    pools = []
    for weights in (f"{weights_file},{other}", f"{copy},{other}", f"{weights_file},{copy}"):
        with mlflow.start_run():
            mlflow.set_tag("medtl.kind", "tune")
            pools.append(BackbonePool.open(TuneSettings(**{**asked, "weights": weights})))
    names = [[each.name.weights for each in pool.all] for pool in pools]
    assert names[0] == [str(weights_file), str(other)]
    assert names[1] == [copy.name, other.name]
    # the digest of the weights decides, not their name
    assert pools[0].fingerprint == pools[1].fingerprint != pools[2].fingerprint
    assert pools[2].left_out == (f"{copy.name}: the same weights as {weights_file.name}",)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"architecture": "small_resnet,resnet19"}, "architecture=resnet19.*resnet18"),
        ({"architecture": "auto,resnet18"}, "architecture=auto"),
        ({"weights": "own.pth"}, r"weights=own.pth.*an existing"),
        ({"weights": "random,own.pth"}, r"weights=own.pth.*an existing"),
        ({"weights": "imagenet"}, r"weights=imagenet.*small_resnet has none"),
        ({"cutoffs": "stage4.0"}, r"cutoffs=stage4.0.*of small_resnet, no such layer"),
        ({"cutoffs": "head,stage9"}, "cutoffs=stage9.*at least one of"),
    ],
)
def test_what_several_architectures_cannot_have_is_a_wrong_parameter(clinic, wrong, words):
    with pytest.raises(ParameterError, match=words):
        tune(TuneSettings(**{"data": str(clinic), **QUICK, "trials": 1, **wrong}))
    assert runs("trial").empty
    assert runs("tune")["status"].tolist() == ["FAILED"]
