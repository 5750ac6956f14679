from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from medtl.errors import ParameterError
from medtl.inference.sklearn_head import SklearnHead, shuffled
from medtl.training.classical_head import CLASSIFIER_SETTINGS, ClassicalHead, select_classical_head


def separable(classes: int, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = np.arange(120) % classes
    features = noise * generator.normal(size=(120, 12)) + 2.0 * np.eye(12)[labels]
    return features.astype(np.float32), labels


def selected(name: str, classes: int = 2, balance: str = "none", **settings) -> ClassicalHead:
    train, valid = separable(classes, **settings), separable(classes, 1, **settings)
    return select_classical_head(name, 6, *train, *valid, balance, seed=0)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("name", ["logistic", "svm", "forest", "knn"])
def test_a_classifier_tells_classes_apart_and_survives_its_file(name, classes, tmp_path):
    made = selected(name, classes)
    unseen, truth = separable(classes, seed=2)
    logits = made.head.logits(unseen)
    assert logits.shape == made.valid_logits.shape == (120, classes)
    for label in range(classes):
        assert roc_auc_score(truth == label, logits[:, label]) > 0.8
    made.head.save(tmp_path / "head.skops")
    np.testing.assert_array_equal(SklearnHead.load(tmp_path / "head.skops").logits(unseen), logits)
    lost = shuffled(made.head, seed=1).logits(unseen)
    assert lost.shape == logits.shape
    assert (lost.argmax(axis=1) == truth).mean() < (logits.argmax(axis=1) == truth).mean() - 0.2


@pytest.mark.parametrize("name", ["logistic", "svm", "forest", "knn"])
def test_the_setting_with_the_highest_validation_auroc_is_selected(name):
    made = selected(name, noise=3.0)
    path = made.path
    assert tuple(path["value"]) == CLASSIFIER_SETTINGS[name][1]
    assert set(path["setting"]) == {CLASSIFIER_SETTINGS[name][0]}
    best = path[path["chosen"]].iloc[0]
    assert path["chosen"].sum() == 1
    assert best["valid_auroc"] == path["valid_auroc"].max()
    assert made.setting == f"{CLASSIFIER_SETTINGS[name][0]}={best['value']:g}"
    estimator = made.head.pipeline[-1]
    assert estimator.get_params()[best["setting"]] == best["value"]
    _, truth = separable(2, 1, noise=3.0)
    assert best["valid_auroc"] == pytest.approx(roc_auc_score(truth, made.valid_logits[:, 1]))


def test_a_selected_penalty_is_better_with_few_images_and_correlated_features():
    """Scikit-learn's default, C=1, fits noise there; means of five draws."""
    selected_aurocs, usual_aurocs = [], []
    for seed in range(5):
        generator = np.random.default_rng(seed)
        factors = generator.normal(size=(1060, 10))
        truth = (factors[:, 0] + generator.normal(size=1060) > 0).astype(int)
        features = factors @ generator.normal(size=(10, 200)) + generator.normal(size=(1060, 200))
        train, valid, test = (
            (features[at].astype(np.float32), truth[at])
            for at in np.array_split(np.arange(1060), [60, 560])
        )
        made = select_classical_head("logistic", 0, *train, *valid, "none", seed=0)
        selected_aurocs.append(roc_auc_score(test[1], made.head.logits(test[0])[:, 1]))
        usual = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(*train)
        usual_aurocs.append(roc_auc_score(test[1], usual.decision_function(test[0])))
    assert np.mean(selected_aurocs) > np.mean(usual_aurocs) + 0.01


def test_neighbours_are_at_most_the_images():
    features, labels = separable(2)
    few = features[:12], labels[:12]
    made = select_classical_head("knn", 0, *few, features, labels, "none", seed=0)
    assert list(made.path["value"]) == [5, 12]


def test_neighbours_cannot_be_balanced():
    with pytest.raises(ParameterError, match="knn"):
        selected("knn", balance="loss")


def test_more_components_than_images_are_refused():
    features, labels = separable(2)
    with pytest.raises(ParameterError, match="at most 5"):
        select_classical_head("svm", 6, features[:5], labels[:5], features, labels, "none", seed=0)
