"""The bundle: what is saved is what is loaded, and images of every depth mean the same."""

from __future__ import annotations

import copy
import dataclasses
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from medtl.errors import MedtlError
from medtl.inference.decisions import calibrated, decide
from medtl.inference.out_of_distribution import LAYOUT, MIDDLE, NETWORK, DomainReference
from medtl.inference.predictor import (
    CHECKSUMS_FILE,
    DOMAIN_FILE,
    SEEN_FILE,
    SETTINGS_FILE,
    TAIL_FILE,
    WEIGHTS_FILE,
    Predictor,
)
from medtl.networks.registry import build


def test_a_loaded_bundle_answers_to_the_bit_as_the_saved_one(
    bundle: Predictor, tmp_path: Path, pixels
):
    bundle.save(tmp_path)
    loaded = Predictor.load(tmp_path)
    images = pixels(3, 5)
    np.testing.assert_array_equal(loaded.scores(images), bundle.scores(images))
    np.testing.assert_array_equal(loaded.features(images), bundle.features(images))
    for field in dataclasses.fields(Predictor):
        if field.name not in ("network", "domain", "seen"):
            assert getattr(loaded, field.name) == getattr(bundle, field.name)
    np.testing.assert_array_equal(loaded.distances(images), bundle.distances(images))


def test_nothing_is_pickled(bundle: Predictor, tmp_path: Path):
    bundle.save(tmp_path / "bundle")
    suffixes = {path.suffix for path in (tmp_path / "bundle").iterdir()}
    assert suffixes == {".json", ".safetensors"}


def test_scores_are_those_of_the_whole_network(bundle: Predictor, pixels):
    images = pixels(2, 6)
    prepared = (torch.from_numpy(images).float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = bundle.network(prepared.expand(-1, 3, -1, -1)).numpy()
    np.testing.assert_allclose(bundle.scores(images), expected, rtol=1e-4, atol=1e-5)


def test_batch_norms_are_folded_into_the_convolutions_before_them(bundle: Predictor, pixels):
    network, ran = build("small_resnet", 3, 64, seed=1).eval(), []
    norms = [each for each in network.modules() if isinstance(each, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.running_mean.uniform_(-1, 1)
        norm.running_var.uniform_(0.5, 2)
    normed = {"architecture": "small_resnet", "network": network, "domain": None}
    predictor, images = dataclasses.replace(bundle, **normed), pixels(2, 8)
    predictor.scores(images)  # cuts the network, which runs it
    for norm in norms:
        norm.register_forward_hook(lambda *_: ran.append(1))
    found = predictor.scores(images)
    assert not ran
    prepared = (torch.from_numpy(images).float() / 255 - 0.5) / 0.25
    with torch.no_grad():
        expected = network(prepared.expand(-1, 3, -1, -1)).numpy()
    assert len(ran) == len(norms)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_moved_predictor_computes_on_the_new_device(bundle: Predictor, pixels):
    copied = dataclasses.replace(bundle, network=copy.deepcopy(bundle.network))
    expected = copied.scores(pixels(2, 8))
    moved = copied.moved_to(torch.device("meta"))
    assert next(moved.network.parameters()).is_meta
    # its parts are those of the device, not the copies of the first pass
    with pytest.raises(NotImplementedError, match="meta"):
        moved.scores(pixels(2, 8))
    assert expected.shape == (2, len(bundle.classes))


def test_answers_are_calibrated_and_decided_at_the_operating_point(bundle: Predictor, pixels):
    images = pixels(5, 7)
    answers = bundle.answer(images)
    probabilities = calibrated(bundle.scores(images), 1.5)
    np.testing.assert_allclose(answers.probabilities, probabilities)
    np.testing.assert_array_equal(answers.labels, probabilities.argmax(axis=1))
    np.testing.assert_array_equal(answers.decisions, decide(probabilities, bundle.thresholds))


def test_strange_images_are_not_in_the_domain(bundle: Predictor, pixels):
    white = np.full((4, 1, 64, 64), 255, np.uint8)
    assert bundle.answer(pixels(4, 9)).in_domain.all()
    assert not bundle.answer(white).in_domain.any()
    assert dataclasses.replace(bundle, domain=None).answer(white).in_domain is None


def test_the_middle_is_mean_and_spread_of_the_block_half_way(bundle: Predictor, pixels):
    maps = []
    whole = copy.deepcopy(bundle.network)
    whole.features[8].register_forward_hook(lambda *passed: maps.append(passed[-1]))
    with torch.no_grad():
        whole(bundle._prepared(pixels(3, 14)))
    expected = torch.cat([maps[0].mean((2, 3)), maps[0].std((2, 3), correction=0)], dim=1)
    found = bundle.compared(pixels(3, 14))[MIDDLE]
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-6)


def test_a_model_from_before_the_middle_was_compared_is_still_read(
    bundle: Predictor, tmp_path: Path, pixels
):
    samples = {name: bundle.domain.samples[name] for name in (NETWORK, LAYOUT)}
    dataclasses.replace(bundle, domain=DomainReference(samples)).save(tmp_path)
    old = Predictor.load(tmp_path)
    assert old.domain.samples.keys() == samples.keys()
    assert old.answer(pixels(4, 9)).in_domain.all()
    assert not old.answer(np.full((4, 1, 64, 64), 255, np.uint8)).in_domain.any()


def test_a_dense_layer_is_rebuilt_and_a_model_from_before_it_is_still_read(
    bundle: Predictor, tmp_path: Path, pixels
):
    network = build("squeezenet1_1", 3, 64, seed=1, hidden=8).eval()
    saved = dataclasses.replace(bundle, network=network, hidden=8)
    saved.save(tmp_path / "new")
    loaded = Predictor.load(tmp_path / "new")
    assert loaded.hidden == 8
    np.testing.assert_array_equal(loaded.scores(pixels(2, 5)), saved.scores(pixels(2, 5)))

    bundle.save(tmp_path / "old")
    file = tmp_path / "old" / SETTINGS_FILE
    settings = json.loads(file.read_text())
    assert settings.pop("hidden") == 0
    file.write_text(json.dumps(settings))
    (tmp_path / "old" / CHECKSUMS_FILE).unlink()
    old = Predictor.load(tmp_path / "old")
    assert old.hidden == 0
    np.testing.assert_array_equal(old.scores(pixels(2, 5)), bundle.scores(pixels(2, 5)))


def test_grey_and_deep_images_mean_the_same_as_colour_and_bytes(bundle: Predictor, pixels):
    images = pixels(2, 10)
    expected = bundle.scores(images)
    np.testing.assert_allclose(bundle.scores(np.repeat(images, 3, axis=1)), expected, atol=1e-6)
    np.testing.assert_allclose(bundle.scores(images * np.uint16(257)), expected, atol=1e-5)


def test_heat_maps_are_pictures_of_the_images(bundle: Predictor, pixels):
    images = pixels(2, 11)
    heatmaps = bundle.heatmaps(images, np.array([0, 2]))
    for heatmap, image in zip(heatmaps, images, strict=True):
        picture = np.asarray(Image.open(io.BytesIO(heatmap)))
        assert picture.shape == (64, 64, 3)
        assert (picture != image[0][..., None]).any()


def test_features_are_those_of_a_linear_head(bundle: Predictor, pixels):
    network = build("mobilenet_v3_small", 3, 64, seed=1).eval()
    other = dataclasses.replace(
        bundle, architecture="mobilenet_v3_small", network=network, domain=None
    )
    images = pixels(2, 12)
    features = torch.from_numpy(other.features(images))
    assert features.shape == (2, 1024)
    with torch.no_grad():
        scores = network.classifier[3](features).numpy()
    np.testing.assert_allclose(scores, other.scores(images), rtol=1e-4, atol=1e-6)


def test_a_folder_without_a_bundle_is_refused_in_one_line(tmp_path: Path):
    with pytest.raises(MedtlError, match=r"holds no model of medtl.*model\.json") as refused:
        Predictor.load(tmp_path)
    assert "\n" not in str(refused.value)


def test_damaged_weights_are_refused(bundle: Predictor, tmp_path: Path):
    bundle.save(tmp_path)
    weights = tmp_path / WEIGHTS_FILE
    weights.write_bytes(weights.read_bytes()[:1000])
    (tmp_path / CHECKSUMS_FILE).unlink()
    with pytest.raises(MedtlError, match="holds no model of medtl that can be read"):
        Predictor.load(tmp_path)


def test_weights_of_another_architecture_are_refused_in_one_line(bundle: Predictor, tmp_path: Path):
    bundle.save(tmp_path)
    settings = json.loads((tmp_path / SETTINGS_FILE).read_text())
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(settings | {"architecture": "alexnet"}))
    (tmp_path / CHECKSUMS_FILE).unlink()
    with pytest.raises(MedtlError, match="holds no model of medtl") as refused:
        Predictor.load(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, DOMAIN_FILE, TAIL_FILE, SEEN_FILE, SETTINGS_FILE])
def test_a_payload_in_a_bundle_is_refused_and_not_run(
    bundle: Predictor, tmp_path: Path, name, payload
):
    bundle.save(tmp_path)
    (tmp_path / CHECKSUMS_FILE).unlink()
    (tmp_path / name).write_bytes(pickle.dumps(payload))
    with pytest.raises(MedtlError) as refused:
        Predictor.load(tmp_path)
    assert "\n" not in str(refused.value)
    assert not payload.folder.exists()


def test_a_bundle_of_another_format_is_refused(bundle: Predictor, tmp_path: Path):
    bundle.save(tmp_path)
    settings = json.loads((tmp_path / SETTINGS_FILE).read_text())
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(settings | {"format": 99}))
    (tmp_path / CHECKSUMS_FILE).unlink()
    with pytest.raises(MedtlError, match="install a newer medtl"):
        Predictor.load(tmp_path)


@pytest.mark.parametrize("name", [WEIGHTS_FILE, DOMAIN_FILE, SETTINGS_FILE])
def test_a_flipped_bit_in_any_file_is_one_line(bundle: Predictor, tmp_path: Path, name: str):
    bundle.save(tmp_path)
    damaged = bytearray((tmp_path / name).read_bytes())
    damaged[-9] ^= 1  # in the last value; JSON and safetensors are still well formed
    (tmp_path / name).write_bytes(damaged)
    with pytest.raises(MedtlError, match=f"{name} is damaged") as refused:
        Predictor.load(tmp_path)
    assert "\n" not in str(refused.value)
