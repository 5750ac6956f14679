"""Predictors of several networks: saved, loaded, explained and served as those of one."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medtl.errors import MedtlError
from medtl.inference.explanation_cut import explained
from medtl.inference.grad_cam import grad_cam, mean_grad_cam
from medtl.inference.out_of_distribution import LAYOUT, NETWORK, DomainReference
from medtl.inference.predictor import CHECKSUMS_FILE, SETTINGS_FILE, Predictor
from medtl.networks.cutoffs import CutPoint, resolve
from medtl.networks.ensemble import Ensemble
from medtl.networks.partition import cut
from medtl.pipeline.heatmap_methods import drawing
from medtl.serving.self_test import run_self_test, write_self_test


def ensemble(bundle: Predictor, cutoff: str) -> tuple[Predictor, list[Predictor]]:
    """An ensemble of three networks that differ from `cutoff` on, and its members alone."""
    networks = [copy.deepcopy(bundle.network) for _ in range(3)]
    size, architecture = bundle.image_size, bundle.architecture
    cuts = [cut(each, resolve(each, architecture, cutoff), size) for each in networks]
    for number, each in enumerate(cuts):
        generator = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for parameter in each.suffix.parameters():
                parameter += 0.02 * torch.randn(parameter.shape, generator=generator)
    alone = [dataclasses.replace(bundle, network=copy.deepcopy(each)) for each in networks]
    network = Ensemble.of(cuts, networks, size)
    name = cuts[0].point.name
    made = dataclasses.replace(bundle, network=network, cutoff=name, members=3, domain=None)
    return made, alone


@pytest.fixture(params=["features.9", "all"])
def several(request, bundle: Predictor) -> tuple[Predictor, list[Predictor]]:
    return ensemble(bundle, request.param)


def test_scores_are_the_mean_of_the_members_and_calibrated_once(several, pixels):
    predictor, alone = several
    images = pixels(3, 5)
    each = np.stack([member.scores(images) for member in alone])
    assert np.ptp(each, axis=0).max() > 1e-3
    np.testing.assert_allclose(predictor.scores(images), each.mean(axis=0), atol=1e-5)
    geometric = np.exp(np.log([m.answer(images).probabilities for m in alone]).mean(axis=0))
    geometric /= geometric.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(predictor.answer(images).probabilities, geometric, atol=1e-5)


def test_a_loaded_ensemble_answers_to_the_bit_as_the_saved_one(several, tmp_path: Path, pixels):
    predictor, _ = several
    train, valid = (predictor.compared(pixels(40, seed)) for seed in (1, 2))
    reference = DomainReference.fit(train, valid, seed=3)
    saved = dataclasses.replace(predictor, domain=reference)
    saved.save(tmp_path)
    picture = io.BytesIO()
    Image.fromarray(pixels(1, 4)[0, 0]).save(picture, "PNG")
    write_self_test(tmp_path, saved, [picture.getvalue()])
    loaded = Predictor.load(tmp_path)
    run_self_test(tmp_path, loaded)
    images = pixels(3, 5)
    assert loaded.members == 3
    np.testing.assert_array_equal(loaded.scores(images), saved.scores(images))
    np.testing.assert_array_equal(loaded.distances(images), saved.distances(images))
    assert loaded.answer(images).in_domain.all()
    assert not loaded.answer(np.full((2, 1, 64, 64), 255, np.uint8)).in_domain.any()


def test_features_are_of_the_common_part(bundle: Predictor, pixels):
    predictor, alone = ensemble(bundle, "features.9")
    images, network = pixels(3, 5), alone[0].network
    with torch.no_grad():
        expected = network.features[:9](predictor._prepared(images)).mean(dim=(2, 3))
    np.testing.assert_allclose(predictor.features(images), expected, atol=1e-5)


def test_without_a_common_part_features_are_of_the_first_member(bundle: Predictor, pixels):
    predictor, alone = ensemble(bundle, "all")
    images = pixels(3, 5)
    found, expected = (each.compared(images) for each in (predictor, alone[0]))
    assert found.keys() == expected.keys()
    for name in (NETWORK, LAYOUT):
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)


def test_the_heat_map_is_the_scaled_mean_of_the_members_maps(several, pixels):
    predictor, alone = several
    images, classes = predictor._prepared(pixels(2, 11)), torch.tensor([0, 2])
    apart = explained(Ensemble([each.network for each in alone], CutPoint("all", 0), 64), 64)
    one = grad_cam(apart.cuts[0], images, classes)
    mean = mean_grad_cam(apart, images, classes)
    assert np.abs(mean - one).max() > 1e-3
    np.testing.assert_allclose(mean.max(axis=(1, 2)), 1)
    np.testing.assert_array_equal(mean_grad_cam(predictor._explained, images, classes), mean)
    assert len(predictor.heatmaps(pixels(2, 11), classes.numpy())) == 2


# the maps are behind features.7
@pytest.mark.parametrize(
    ("cutoff", "passes"), [("features.4", [1, 3]), ("features.9", [1, 1]), ("all", [3, 3])]
)
def test_heat_maps_run_the_common_part_once(
    bundle: Predictor, pixels, cutoff: str, passes: list[int]
):
    predictor, _ = ensemble(bundle, cutoff)
    network, names = predictor._explained, ("features.3.squeeze", "features.6.squeeze")
    runs: Counter[str] = Counter()
    for member in predictor.network.members:
        for name in names:
            member.get_submodule(name).register_forward_hook(
                lambda *_, name=name: runs.update([name])
            )
    mean_grad_cam(network, predictor._prepared(pixels(2, 11)), torch.tensor([0, 2]))
    assert [runs[name] for name in names] == passes


def test_checks_of_maps_randomise_each_member(bundle: Predictor, pixels):
    predictor, _ = ensemble(bundle, "features.9")
    images, classes = predictor._prepared(pixels(2, 11)), torch.tensor([0, 2])
    how = drawing(predictor, "grad_cam", seed=0)
    trained = how.trained(images, classes)
    _, first = next(how.without)
    assert np.abs(first(images, classes) - trained).max() > 0.05
    np.testing.assert_array_equal(how.trained(images, classes), trained)


def test_settings_say_how_many_members_there_are(bundle: Predictor, tmp_path: Path):
    predictor, _ = ensemble(bundle, "features.9")
    predictor.save(tmp_path)
    settings = json.loads((tmp_path / SETTINGS_FILE).read_text())
    assert settings["members"] == 3


def test_a_model_from_before_ensembles_is_a_single_one(bundle: Predictor, tmp_path: Path, pixels):
    bundle.save(tmp_path)
    file = tmp_path / SETTINGS_FILE
    settings = json.loads(file.read_text())
    del settings["members"]
    file.write_text(json.dumps(settings | {"format": 1}))
    (tmp_path / CHECKSUMS_FILE).unlink()
    old = Predictor.load(tmp_path)
    assert old.members == 0
    np.testing.assert_array_equal(old.scores(pixels(2, 5)), bundle.scores(pixels(2, 5)))


def test_weights_of_another_cutoff_are_refused_in_one_line(bundle: Predictor, tmp_path: Path):
    predictor, _ = ensemble(bundle, "features.9")
    dataclasses.replace(predictor, cutoff="features.12").save(tmp_path)
    with pytest.raises(MedtlError, match=r"holds no model.*member 2 has not") as refused:
        Predictor.load(tmp_path)
    assert "\n" not in str(refused.value)
