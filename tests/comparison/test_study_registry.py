from __future__ import annotations

import dataclasses

import pytest

from medtl.comparison.design import cell_names
from medtl.comparison.papers.boit2019 import HIDDEN
from medtl.comparison.study_registry import plan_of
from medtl.errors import ParameterError
from medtl.networks.registry import image_network
from medtl.settings.comparison import CompareSettings

SMALL = "shufflenet_v2_x0_5"


def plan(study: str, **settings: object):
    return plan_of(CompareSettings(study=study, **settings))


def named_pairs(made) -> list[tuple[str, str]]:
    names = cell_names(made.cells)
    return [(names[a], names[b]) for a, b in made.pairs]


@pytest.mark.parametrize(
    ("study", "settings", "cells", "pairs"),
    [
        ("grid", {}, 6, 7),
        ("zhang2023", {}, 4, 2),
        ("zhang2023", {"data": "/own", "seeds": "0,1"}, 16, 8),
        ("kim2022", {}, 8, 7),
        ("kim2022", {"classifier": "svm", "cutoffs": "layer2,layer4"}, 6, 5),
        ("kandel2020", {"architecture": "small_resnet"}, 6, 5),
        ("boit2019", {}, 6, 3),
        ("boit2019", {"data": "/own", "optimizers": "adam"}, 2, 1),
        ("boit2019", {"optimizers": "adam", "hidden": "0,64"}, 4, 4),
        ("kandel2020", {"architecture": "small_resnet", "hidden": "0,64"}, 12, 10),
        ("alzubaidi2020", {}, 18, 18),
        ("alzubaidi2020", {"data": "/own", "same": "/source"}, 60, 60),
        ("trinh2021", {}, 3, 2),
        ("dai2021", {}, 6, 5),
    ],
)
def test_a_study_has_its_cells_and_pairs_and_no_two_names_are_equal(study, settings, cells, pairs):
    made = plan(study, **settings)
    assert (len(made.cells), len(made.pairs)) == (cells, pairs)
    assert len(set(cell_names(made.cells).values())) == len(set(made.cells)) == cells


def test_a_pair_differs_in_what_is_compared_and_in_nothing_else():
    for a, b in plan("zhang2023", fractions="0.5,1", seeds="0,1").pairs:
        assert (a.weights, b.weights) == ("random", "auto")
        assert (a.architecture, a.fraction, a.seed, a.lr, a.cutoff) == (
            b.architecture,
            b.fraction,
            b.seed,
            b.lr,
            b.cutoff,
        )


def test_networks_of_embedded_cases_begin_from_images_of_another_set():
    made = plan("dai2021")
    assert {cell.weights for cell in made.cells} == {"pretrained on phantoms-source"}
    assert {image_network(cell.architecture) for cell in made.cells} == {"small_resnet"}
    assert {cell.weights for cell in plan("dai2021", weights="random").cells} == {"random"}


def test_strategies_of_boit_are_as_published():
    made = plan("boit2019", data="/own")
    first, second = (
        [cell for cell in made.cells if cell.series == f"strategy {n}"] for n in (1, 2)
    )
    assert {(c.architecture, c.cutoff, c.augment) for c in first} == {
        ("densenet121", "head", "none")
    }
    assert {(c.cutoff, c.augment) for c in second} == {("conv5_block16_2_conv", "light")}
    assert {cell.optimizer for cell in second} == {"adam", "sgd", "rmsprop"}
    assert {cell.hidden for cell in made.cells} == {HIDDEN}
    assert f"dense layer ({HIDDEN})" in " ".join(made.notes)


def test_a_dense_layer_is_compared_with_none_all_else_being_equal():
    made = plan("grid", weights="random", cutoffs="all", hidden="0,64")
    ((without, with_it),) = made.pairs
    assert dataclasses.replace(with_it, hidden=0) == without
    assert {cell.hidden for cell in plan("grid").cells} == {0}
    other = [pair for pair in plan("boit2019", hidden="0,64").pairs if pair[0].hidden]
    assert all(a.hidden == b.hidden for a, b in other)


def test_hybrids_have_no_dense_layer():
    made = plan("grid", weights="random", cutoffs="head", transfer="finetune,hybrid", hidden="64")
    assert {(cell.transfer, cell.hidden) for cell in made.cells} == {
        ("finetune", 64),
        ("hybrid", 0),
    }


def test_two_networks_are_trained_from_the_same_layers_joined_and_alone():
    one, other, joined = plan("trinh2021").cells
    assert joined.architecture == f"dual:{one.architecture}+{other.architecture}"
    assert joined.cutoff == f"{one.cutoff}+{other.cutoff}"
    assert {cell.schedule for cell in (one, other, joined)} == {"two_stage"}


def test_blocks_are_swept_from_all_to_the_head():
    cutoffs = [cell.cutoff for cell in plan("kandel2020", architecture="small_resnet").cells]
    assert cutoffs == ["all", "layer1", "layer2", "layer3", "layer4", "head"]


def test_a_grid_compares_each_value_with_the_first_of_its_list():
    made = plan("grid", architecture=SMALL, weights="random,auto", cutoffs="all,head",
                fractions="0.5,1")  # fmt: skip
    assert len(made.cells) == 8
    assert len(made.pairs) == 12
    assert ("random, all layers, 50 % of the training images",
            "random, the head alone, 50 % of the training images") in named_pairs(made)  # fmt: skip
    assert set(made.pictures) == {"convergence", "depth", "size"}


def test_a_hybrid_of_a_grid_is_not_repeated_for_each_optimizer():
    made = plan("grid", weights="random", cutoffs="head", transfer="finetune,hybrid",
                classifier="svm,knn", optimizers="adam,sgd")  # fmt: skip
    assert sorted(cell.classifier for cell in made.cells) == ["", "", "knn", "svm"]


def test_seeds_are_repeats_and_learning_rates_stay_out_of_names():
    made = plan("boit2019", seeds="0,1")
    assert "strategy 1, sgd, seed 1" in cell_names(made.cells).values()


@pytest.mark.parametrize(
    ("study", "settings", "named"),
    [
        ("kim2022", {"transfer": "hybrid"}, "transfer"),
        ("grid", {"same": "phantoms-source"}, "same"),
        ("kandel2020", {"architecture": "vgg61"}, "architecture"),
        ("trinh2021", {"architecture": "resnet18"}, "architecture"),
        ("alzubaidi2020", {"data": "/own"}, "same"),
        ("grid", {"fractions": "0.5,2"}, "fractions"),
        ("grid", {"seeds": "0,a"}, "seeds"),
        ("grid", {"optimizers": "adem"}, "optimizers"),
        ("grid", {"hidden": "0,few"}, "hidden"),
        ("grid", {"transfer": "hybrid", "hidden": "64"}, "hidden"),
    ],
)
def test_a_wrong_parameter_is_named(study, settings, named):
    with pytest.raises(ParameterError) as error:
        plan(study, **settings)
    assert error.value.name == named


def test_learning_rates_to_choose_among_are_the_same_at_every_depth_and_from_every_source():
    for study in ("kandel2020", "kim2022", "zhang2023"):
        made = plan(study, data="/own", architecture="small_resnet")
        trained = [cell for cell in made.cells if cell.transfer == "finetune"]
        assert {(cell.lr, cell.rates) for cell in trained} == {(0.0, (1e-4, 3e-4, 1e-3))}
        assert len({cell.seed for cell in trained}) == 5
        assert "chosen among 0.0001, 0.0003, 0.001 (adam) by the validation AUROC" in made.notes[-1]
    for asked in ({"lr": 0.01}, {"rates": "0.01"}):
        assert {(cell.lr, cell.rates) for cell in plan("grid", **asked).cells} == {(0.01, ())}
        assert plan("grid", **asked).notes[-1].startswith("The learning rate is given (0.01)")
    published = plan("trinh2021", data="/own", architecture="resnet18,resnet34")
    assert {cell.lr for cell in published.cells} == {1e-4}
    with pytest.raises(ParameterError, match="empty where lr"):
        plan("grid", lr=0.01, rates="0.1,0.2")
