"""Answering requests: every readable row is answered, whatever the others are."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from collections.abc import Callable
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models.model import ModelInfo
from mlflow.pyfunc import PythonModelContext
from PIL import Image

from medtl.imaging.pixels import square
from medtl.inference.predictor import Predictor
from medtl.serving import handler
from medtl.serving.handler import BUNDLE, FIELDS, HEATMAP, PREDICTED, ServedModel
from medtl.serving.request_parsing import Parameters, RefusedRequest
from medtl.tracking.logged_model import HYBRID, REQUIREMENTS
from medtl.training.classical_head import select_classical_head

Ask = Callable[..., pd.DataFrame]


@pytest.fixture
def ask(bundle: Predictor, tmp_path: Path) -> Ask:
    """`ask(files, **params)`: the answers of a served model to these rows."""
    bundle.save(tmp_path / BUNDLE)
    model = ServedModel()
    context = PythonModelContext({BUNDLE: str(tmp_path / BUNDLE)}, None)
    model.load_context(context)

    def asked(files: list[object], **params: object) -> pd.DataFrame:
        return model.predict(
            context, pd.DataFrame({"image": pd.Series(files, dtype=object)}), params
        )

    return asked


def test_answers_are_those_of_the_bundle(ask: Ask, bundle: Predictor, pixels, image_file):
    images = pixels(3, 1)
    answers = bundle.answer(images)
    table = ask([image_file(image) for image in images])
    assert tuple(table.columns) == FIELDS
    assert table["label"].tolist() == [bundle.classes[label] for label in answers.labels]
    assert table["decision"].tolist() == [bundle.classes[each] for each in answers.decisions]
    for row, probabilities in zip(table.itertuples(), answers.probabilities, strict=True):
        np.testing.assert_allclose(list(row.probabilities.values()), probabilities, rtol=1e-5)
        assert list(row.probabilities) == list(bundle.classes)
        assert row.probability == max(row.probabilities.values())
    assert table["in_domain"].tolist() == [True, True, True]
    assert table["error"].tolist() == [None, None, None]


def test_one_broken_image_does_not_sink_the_others(ask: Ask, pixels, image_file):
    good = [image_file(image, kind) for image, kind in
            zip(pixels(4, 2), ("PNG", "BMP", "TIFF", "JPEG"), strict=True)]  # fmt: skip
    files = [good[0], b"junk", good[1], good[2][:500], b"", good[3], None, "text", 3.5]
    table = ask(files)
    broken = [error is not None for error in table["error"]]
    assert broken == [False, True, False, True, True, False, True, True, True]
    for row in table[broken].to_dict(orient="records"):
        assert "\n" not in row["error"]
        assert all(row[field] is None for field in PREDICTED if field != "error")
    assert ask([good[3]])["label"][0] == table["label"][5]
    json.dumps(table.to_dict(orient="records"), allow_nan=False)


def test_only_broken_images_are_answered_too(ask: Ask):
    assert ask([b"junk", None], explain=True)[HEATMAP].tolist() == [None, None]


def test_rows_keep_their_order_over_many_chunks(
    ask: Ask, bundle: Predictor, pixels, image_file, monkeypatch: pytest.MonkeyPatch
):
    images = pixels(11, 3)
    files = [image_file(image) for image in images]
    files[7] = b"junk"
    together = ask(files)
    monkeypatch.setattr(handler, "CHUNK", 3)
    apart = ask(files)
    assert apart["error"].isna().tolist() == [index != 7 for index in range(11)]
    for index in (*range(7), *range(8, 11)):
        expected = bundle.answer(images[index : index + 1]).probabilities[0]
        for table in (together, apart):
            np.testing.assert_allclose(
                list(table["probabilities"][index].values()), expected, rtol=1e-5
            )


def test_grey_colour_and_deep_images_stand_in_one_request(ask: Ask, bundle: Predictor, image_file):
    ramp = np.linspace(0, 255, 64 * 64).reshape(64, 64).astype(np.uint8)
    colour = io.BytesIO()
    Image.fromarray(np.stack([ramp, ramp.T, ramp], axis=2)).save(colour, "PNG")
    deep = io.BytesIO()
    Image.fromarray(ramp.astype(np.uint16) * 257).save(deep, "PNG")
    files = [image_file(ramp[None]), colour.getvalue(), deep.getvalue()]
    together = ask(files)
    for index, file in enumerate(files):
        assert together["probability"][index] == pytest.approx(ask([file])["probability"][0])
    assert together["probability"][0] == pytest.approx(together["probability"][2], abs=1e-6)


def test_files_of_any_size_are_brought_to_that_of_the_network(
    ask: Ask, bundle: Predictor, image_file
):
    wide = np.random.default_rng(4).integers(0, 256, (150, 300)).astype(np.uint8)
    expected = bundle.answer(np.stack([square(wide, 64)])).probabilities[0]
    found = ask([image_file(wide[None])])["probabilities"][0]
    np.testing.assert_allclose(list(found.values()), expected, rtol=1e-5)


def test_explain_adds_a_heat_map(ask: Ask, pixels, image_file):
    file = image_file(pixels(1, 5)[0])
    assert HEATMAP not in ask([file], explain=False)
    table = ask([file, b"junk"], explain=True)
    picture = Image.open(io.BytesIO(base64.b64decode(table[HEATMAP][0], validate=True)))
    assert (picture.format, picture.size) == ("PNG", (64, 64))
    assert table[HEATMAP][1] is None


def test_a_hybrid_is_explained_by_occlusion(bundle: Predictor, tmp_path: Path, pixels, image_file):
    images = pixels(24, 6)
    known = bundle.features(images), np.arange(24) % 3
    classical = select_classical_head("logistic", 0, *known, *known, "none", seed=0)
    hybrid = dataclasses.replace(bundle, tail=classical.head)
    hybrid.save(tmp_path / BUNDLE)
    model = ServedModel()
    model.load_context(PythonModelContext({BUNDLE: str(tmp_path / BUNDLE)}, None))
    rows = model.answers([[image_file(image)] for image in images[:2]], Parameters(explain=True))
    expected = hybrid.heatmaps(images[:2], hybrid.answer(images[:2]).labels)
    assert [base64.b64decode(row[HEATMAP]) for row in rows] == expected
    shown = np.asarray(Image.open(io.BytesIO(expected[0])))
    assert (shown != images[0][0][..., None]).any()
    assert {"captum", "scikit-learn", "skops"} == set(HYBRID) - set(REQUIREMENTS)


def test_base64_text_is_answered_as_the_file(ask: Ask, pixels, image_file):
    file = image_file(pixels(1, 5)[0])
    binary, text = ask([file]), ask([base64.b64encode(file).decode()])
    same = [field for field in FIELDS if field != "request_id"]
    assert text[same].to_dict() == binary[same].to_dict()


def test_mlflow_predicts_a_csv_with_base64(logged: ModelInfo, tmp_path: Path, pixels, image_file):
    files = [image_file(image) for image in pixels(2, 5)]
    rows = [{"image": base64.b64encode(file).decode()} for file in files]
    pd.DataFrame(rows).to_csv(tmp_path / "images.csv", index=False)
    mlflow.models.predict(
        logged.model_uri,
        input_path=str(tmp_path / "images.csv"),
        output_path=str(tmp_path / "answers.json"),
        content_type="csv",
        env_manager="local",
    )
    answers = json.loads((tmp_path / "answers.json").read_text())["predictions"]
    assert [row["error"] for row in answers] == [None, None]
    assert answers[0]["probability"] != answers[1]["probability"]


def test_a_request_id_is_returned_or_made(ask: Ask):
    assert ask([b"junk"] * 2, request_id="ward-7")["request_id"].tolist() == ["ward-7"] * 2
    made = {ask([b"junk"])["request_id"][0] for _ in range(2)}
    assert len(made) == 2


def test_a_request_of_no_rows_is_refused(ask: Ask):
    with pytest.raises(RefusedRequest, match="no rows"):
        ask([])


def test_too_many_rows_are_refused(ask: Ask):
    with pytest.raises(RefusedRequest, match="4097 rows, more than 4096"):
        ask([b""] * 4097)


def test_too_many_bytes_are_refused(ask: Ask, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(handler, "MOST_BYTES", 2**20)
    with pytest.raises(RefusedRequest, match="2 MiB of images, more than 1;"):
        ask([bytes(2**20), bytes(2**20)])
