"""Published layouts are recognised by what is there, said, and read with their own splits."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from medtl.data.manifest import Table, data_name, read_table
from medtl.data.sources import chexpert, medmnist
from medtl.data.sources.registry import source_of
from medtl.errors import MedtlError
from medtl.settings.data import Reading

Build = Callable[[str, str], Path]


@pytest.fixture
def build(tmp_path) -> Build:
    """`build(name, tree)`: a folder; a line `PATH` is an image, `PATH: text` another file."""
    random = np.random.default_rng(0)

    def write(name: str, tree: str) -> Path:
        root = tmp_path / name
        for line in filter(None, map(str.strip, tree.splitlines())):
            path, colon, text = line.partition(": ")
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            if colon:
                content = text.replace(" / ", "\n") + "\n"
                packed = gzip.compress(content.encode())
                file.write_bytes(packed if file.suffix == ".gz" else content.encode())
            else:
                pixels = Image.fromarray(random.integers(0, 256, (4, 4), dtype=np.uint8))
                pixels.save(file, format="PNG")
        return root

    return write


def rows(table: Table, *columns: str) -> list[tuple[str, ...]]:
    """The values of columns, by the name of the image."""
    frame = table.frame.assign(name=table.frame["path"].map(lambda path: Path(path).name))
    return [tuple(row) for row in frame[["name", *columns]].to_numpy().tolist()]


def is_said(table: Table, name: str) -> bool:
    return any(note.startswith(f"read in the layout of {name}") for note in table.notes)


def test_ham10000(build):
    root = build(
        "skin",
        """
        HAM10000_images_part_1/ISIC_01.jpg
        HAM10000_images_part_1/ISIC_02.jpg
        HAM10000_images_part_2/ISIC_03.jpg
        HAM10000_images_part_2/ISIC_04.jpg
        HAM10000_metadata.csv: lesion_id,image_id,dx,dx_type,age,sex,localization / \
HAM_1,ISIC_01,nv,histo,45.0,male,back / HAM_1,ISIC_02,nv,histo,45.0,male,back / \
HAM_2,ISIC_03,mel,histo,60.0,female,face / HAM_3,ISIC_04,mel,histo,,unknown,face
        """,
    )
    for place in (root, root / "HAM10000_metadata.csv"):
        table = read_table(str(place))
        assert table.name == data_name(str(place)) == "skin"
        assert is_said(table, "HAM10000")
        assert rows(table, "label", "patient", "age") == [
            ("ISIC_01.jpg", "nv", "HAM_1", "45.0"),
            ("ISIC_02.jpg", "nv", "HAM_1", "45.0"),
            ("ISIC_03.jpg", "mel", "HAM_2", "60.0"),
            ("ISIC_04.jpg", "mel", "HAM_3", ""),
        ]


def test_a_layout_is_overridden(build):
    root = build(
        "skin",
        """
        images/a.png
        images/b.png
        images/c.png
        images/d.png
        HAM10000_metadata.csv: lesion_id,image_id,dx / 1,a,x / 2,b,x / 3,c,y / 4,d,y
        """,
    )
    file = root / "HAM10000_metadata.csv"
    assert source_of(file).name == "HAM10000"
    assert source_of(file, Reading(layout="plain")).name == "table"
    assert source_of(root, Reading(layout="plain")).name == "folder"
    given = Reading(columns="path:image_id,label:dx", path_pattern="images/{}.png")
    table = read_table(str(file), given)
    assert not is_said(table, "HAM10000")
    assert table.classes == ("x", "y")


def test_images_that_are_not_there_are_counted(build):
    root = build(
        "skin",
        """
        images/a.png
        HAM10000_metadata.csv: lesion_id,image_id,dx / 1,a,x / 2,b,x / 3,c,y
        """,
    )
    with pytest.raises(MedtlError, match=r"2 of 3 images are not there \(b, c\)") as refusal:
        read_table(str(root))
    assert "\n" not in str(refusal.value)


def test_aptos(build):
    root = build(
        "aptos",
        """
        train_images/0a.png
        train_images/0b.png
        train_images/0c.png
        train_images/0d.png
        test_images/0e.png
        test.csv: id_code / 0e
        train.csv: id_code,diagnosis / 0a,0 / 0b,4 / 0c,0 / 0d,4
        """,
    )
    table = read_table(str(root))
    assert is_said(table, "APTOS 2019")
    assert table.classes == ("No DR", "Proliferative DR")
    assert rows(table, "label")[1] == ("0b.png", "Proliferative DR")


def chexpert_rows(*lines: str) -> str:
    head = ",".join(["Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *chexpert.FINDINGS])
    return " / ".join([head, *lines])


def values(**given: str) -> str:
    names = [name.replace(" ", "_") for name in chexpert.FINDINGS]
    return ",".join(given.get(name, "") for name in names)


@pytest.mark.parametrize("folder", ["CheXpert-v1.0-small", "elsewhere"])
def test_chexpert(build, folder):
    archive = "CheXpert-v1.0-small"
    view = "study1/view1_frontal.jpg"
    train = chexpert_rows(
        f"{archive}/train/patient00001/{view},Female,68,Frontal,AP,{values(No_Finding='1.0')}",
        f"{archive}/train/patient00002/{view},Male,50,Frontal,PA,"
        + values(Edema="1.0", Cardiomegaly="-1.0", Pneumonia="0.0"),
    )
    valid = chexpert_rows(
        f"{archive}/valid/patient64541/{view},Male,73,Frontal,AP,{values(Cardiomegaly='1.0')}"
    )
    root = build(
        folder,
        f"""
        train/patient00001/{view}
        train/patient00002/{view}
        valid/patient64541/{view}
        train.csv: {train}
        valid.csv: {valid}
        """,
    )
    table = read_table(str(root))
    assert is_said(table, "CheXpert")
    assert table.multi_label
    assert table.frame[["label", "patient", "split"]].to_numpy().tolist() == [
        ["No Finding", "patient00001", "train"],
        ["Edema|?Cardiomegaly", "patient00002", "train"],
        ["Cardiomegaly", "patient64541", "valid"],
    ]
    assert table.frame["Sex"].tolist() == ["Female", "Male", "Male"]
    taken = read_table(str(root), Reading(uncertain="positive"))
    assert taken.frame["label"][1] == "Cardiomegaly|Edema"
    alone = read_table(str(root / "train.csv"))
    assert set(alone.frame["split"]) == {""}


def test_mimic_cxr_jpg(build):
    findings = "Atelectasis,Cardiomegaly,No Finding"
    root = build(
        "mimic",
        f"""
        files/p10/p10000032/s50414267/aa.jpg
        files/p10/p10000032/s50414267/bb.jpg
        files/p11/p11000011/s51029426/cc.jpg
        files/p12/p12000012/s52000000/dd.jpg
        mimic-cxr-2.0.0-chexpert.csv.gz: subject_id,study_id,{findings} / \
10000032,50414267,1.0,-1.0, / 11000011,51029426,,,1.0
        mimic-cxr-2.0.0-split.csv.gz: dicom_id,study_id,subject_id,split / \
aa,50414267,10000032,train / bb,50414267,10000032,train / cc,51029426,11000011,validate / \
dd,52000000,12000012,test
        mimic-cxr-2.0.0-metadata.csv.gz: dicom_id,subject_id,study_id,ViewPosition / \
aa,10000032,50414267,PA / bb,10000032,50414267,LATERAL / cc,11000011,51029426,AP
        """,
    )
    table = read_table(str(root))
    assert is_said(table, "MIMIC-CXR-JPG")
    assert rows(table, "label", "patient", "split", "view") == [
        ("aa.jpg", "Atelectasis|?Cardiomegaly", "10000032", "train", "PA"),
        ("bb.jpg", "Atelectasis|?Cardiomegaly", "10000032", "train", "LATERAL"),
        ("cc.jpg", "No Finding", "11000011", "valid", "AP"),
    ]
    assert "1 images of studies without labels are left out" in table.notes
    (root / "mimic-cxr-2.0.0-split.csv.gz").unlink()
    table = read_table(str(root))
    assert [name for name, _ in rows(table, "label")] == ["aa.jpg", "bb.jpg", "cc.jpg"]
    assert set(table.frame["split"]) == {""}


def test_vindr_cxr(build):
    votes = "aa,R1,1,1,0 / aa,R2,1,0,0 / aa,R3,0,0,0 / bb,R1,0,0,1 / bb,R2,0,0,1 / bb,R3,0,1,0"
    names = "Cardiomegaly,Nodule/Mass,No finding"
    root = build(
        "vindr",
        f"""
        train/aa.dicom
        train/bb.dicom
        test/cc.dicom
        annotations/image_labels_train.csv: image_id,rad_id,{names} / {votes}
        annotations/image_labels_test.csv: image_id,{names} / cc,1,1,0
        """,
    )
    table = read_table(str(root))
    assert is_said(table, "VinDr-CXR")
    assert rows(table, "label", "split") == [
        ("aa.dicom", "Cardiomegaly", ""),
        ("bb.dicom", "No Finding", ""),
        ("cc.dicom", "Cardiomegaly|Nodule/Mass", "test"),
    ]
    assert any("(readers=majority)" in note for note in table.notes)
    one = read_table(str(root / "annotations" / "image_labels_train.csv"), Reading(readers="any"))
    assert rows(one, "label") == [
        ("aa.dicom", "Cardiomegaly|Nodule/Mass"),
        ("bb.dicom", "Nodule/Mass"),
    ]


def test_vindr_cxr_of_kaggle_has_a_row_a_box(build):
    root = build(
        "vindr",
        """
        train/aa.dicom
        train/bb.dicom
        train.csv: image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max / \
aa,Cardiomegaly,3,R1,1,1,2,2 / aa,Cardiomegaly,3,R1,5,5,6,6 / aa,ILD,5,R1,1,1,2,2 / \
aa,Cardiomegaly,3,R2,1,1,2,2 / aa,No finding,14,R3,,,, / bb,No finding,14,R1,,,, / \
bb,No finding,14,R2,,,, / bb,ILD,5,R3,1,1,2,2
        """,
    )
    table = read_table(str(root))
    assert is_said(table, "VinDr-CXR")
    assert rows(table, "label") == [("aa.dicom", "Cardiomegaly"), ("bb.dicom", "No Finding")]
    assert "8 rows, of boxes, are 6 readings" in table.notes


def test_rsna_pneumonia(build):
    root = build(
        "rsna",
        """
        stage_2_train_images/p1.dcm
        stage_2_train_images/p2.dcm
        stage_2_train_images/p3.dcm
        stage_2_train_images/p4.dcm
        stage_2_train_labels.csv: patientId,x,y,width,height,Target / p1,1,1,2,2,1 / \
p1,3,1,2,2,1 / p2,,,,,0 / p3,,,,,0 / p4,1,1,1,1,1
        stage_2_detailed_class_info.csv: patientId,class / p1,Lung Opacity / p1,Lung Opacity / \
p2,Normal / p3,Normal / p4,Lung Opacity
        """,
    )
    table = read_table(str(root))
    assert is_said(table, "RSNA pneumonia")
    assert [label for _, label in rows(table, "label")] == [
        "Lung Opacity", "Normal", "Normal", "Lung Opacity",
    ]  # fmt: skip
    assert "5 rows, of boxes, are 4 images" in table.notes
    table = read_table(str(root / "stage_2_train_labels.csv"))
    assert table.classes == ("No Lung Opacity", "Lung Opacity")


def test_isic_2017_has_a_class_without_a_column(build):
    head = "image_id,melanoma,seborrheic_keratosis"
    root = build(
        "isic",
        f"""
        ISIC-2017_Training_Data/ISIC_1.jpg
        ISIC-2017_Training_Data/ISIC_2.jpg
        ISIC-2017_Validation_Data/ISIC_3.jpg
        ISIC-2017_Test_v2_Data/ISIC_4.jpg
        ISIC-2017_Training_Part3_GroundTruth.csv: {head} / ISIC_1,1.0,0.0 / ISIC_2,0.0,0.0
        ISIC-2017_Validation_Part3_GroundTruth.csv: {head} / ISIC_3,0.0,0.0
        ISIC-2017_Test_v2_Part3_GroundTruth.csv: {head} / ISIC_4,1.0,0.0
        """,
    )
    table = read_table(str(root))
    assert is_said(table, "ISIC 2017")
    assert rows(table, "label", "split") == [
        ("ISIC_1.jpg", "melanoma", "train"),
        ("ISIC_2.jpg", "nevus", "train"),
        ("ISIC_3.jpg", "nevus", "valid"),
        ("ISIC_4.jpg", "melanoma", "test"),
    ]


def test_isic_2018_has_each_table_in_a_folder(build):
    head = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
    nevus, melanoma = "0.0,1.0,0.0,0.0,0.0,0.0,0.0", "1.0,0.0,0.0,0.0,0.0,0.0,0.0"
    name = "ISIC2018_Task3_Training_GroundTruth"
    root = build(
        "isic",
        f"""
        ISIC2018_Task3_Training_Input/ISIC_1.jpg
        ISIC2018_Task3_Training_Input/ISIC_2.jpg
        ISIC2018_Task3_Training_Input/ISIC_3.jpg
        ISIC2018_Task3_Training_Input/ISIC_4.jpg
        ISIC2018_Task3_Training_LesionGroupings.csv: image,lesion_id,diagnosis_confirm_type / \
ISIC_1,HAM_1,histopathology / ISIC_2,HAM_1,histopathology / ISIC_3,HAM_2,x / ISIC_4,HAM_3,x
        {name}/{name}.csv: {head} / ISIC_1,{nevus} / ISIC_2,{nevus} / ISIC_3,{melanoma} / \
ISIC_4,{melanoma}
        """,
    )
    for place in (root, root / name / f"{name}.csv"):
        table = read_table(str(place))
        assert is_said(table, "ISIC 2018")
        assert rows(table, "label", "patient", "split") == [
            ("ISIC_1.jpg", "NV", "HAM_1", ""),
            ("ISIC_2.jpg", "NV", "HAM_1", ""),
            ("ISIC_3.jpg", "MEL", "HAM_2", ""),
            ("ISIC_4.jpg", "MEL", "HAM_3", ""),
        ]


def test_isic_2019_leaves_out_the_class_without_training_images(build):
    head = "image,MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"
    melanoma, nevus, unknown = (
        ",".join("1.0" if place == hot else "0.0" for place in range(9)) for hot in (0, 1, 8)
    )
    test = f"ISIC_3,{melanoma},1,0 / ISIC_4,{unknown},1,0 / ISIC_5,{nevus},1,0"
    root = build(
        "isic",
        f"""
        ISIC_2019_Training_Input/ISIC_1.jpg
        ISIC_2019_Training_Input/ISIC_2.jpg
        ISIC_2019_Test_Input/ISIC_3.jpg
        ISIC_2019_Test_Input/ISIC_4.jpg
        ISIC_2019_Test_Input/ISIC_5.jpg
        ISIC_2019_Training_GroundTruth.csv: {head} / ISIC_1,{melanoma} / ISIC_2,{nevus}
        ISIC_2019_Test_GroundTruth.csv: {head},score_weight,validation_weight / {test}
        """,
    )
    table = read_table(str(root))
    assert is_said(table, "ISIC 2019")
    assert [split for _, split in rows(table, "split")] == ["train", "train", "test", "test"]
    assert "1 images of UNK, without training images, are left out" in table.notes


def test_isic_2020_publishes_patients(build):
    head = (
        "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis,"
        "benign_malignant,target"
    )
    lines = " / ".join(
        f"ISIC_{number},IP_{number // 2},IL_{number},male,45,torso,unknown,{label},0"
        for number, label in enumerate(["benign", "benign", "malignant", "malignant"])
    )
    root = build(
        "isic",
        f"""
        train/ISIC_0.jpg
        train/ISIC_1.jpg
        train/ISIC_2.jpg
        train/ISIC_3.jpg
        ISIC_2020_Training_GroundTruth_v2.csv: {head} / {lines}
        """,
    )
    table = read_table(str(root))
    assert is_said(table, "ISIC 2020")
    assert table.classes == ("benign", "malignant")
    assert [patient for _, patient in rows(table, "patient")] == ["IP_0", "IP_0", "IP_1", "IP_1"]


@pytest.mark.parametrize(
    "below", ["", "histology_slides/breast", "BreaKHis_v1/histology_slides/breast"]
)
def test_breakhis(build, below):
    benign, malignant = "benign/SOB/adenosis", "malignant/SOB/ductal_carcinoma"
    prefix = f"{below}/" if below else ""
    root = build(
        "slides",
        f"""
        {prefix}{benign}/SOB_B_A_14-22549AB/40X/SOB_B_A-14-22549AB-40-001.png
        {prefix}{benign}/SOB_B_A_14-22549AB/100X/SOB_B_A-14-22549AB-100-001.png
        {prefix}{malignant}/SOB_M_DC_14-10926/40X/SOB_M_DC-14-10926-40-001.png
        {prefix}{malignant}/SOB_M_DC_14-10926/40X/SOB_M_DC-14-10926-40-002.png
        """,
    )
    table = read_table(str(root))
    assert is_said(table, "BreakHis")
    assert rows(table, "label", "patient", "tumour", "magnification") == [
        ("SOB_B_A-14-22549AB-100-001.png", "benign", "14-22549AB", "A", "100X"),
        ("SOB_B_A-14-22549AB-40-001.png", "benign", "14-22549AB", "A", "40X"),
        ("SOB_M_DC-14-10926-40-001.png", "malignant", "14-10926", "DC", "40X"),
        ("SOB_M_DC-14-10926-40-002.png", "malignant", "14-10926", "DC", "40X"),
    ]


def test_kermany_chest(build):
    root = build(
        "chest_xray",
        """
        train/NORMAL/IM-0115-0001.jpeg
        train/NORMAL/NORMAL2-IM-0381-0001.jpeg
        train/PNEUMONIA/person1_bacteria_1.jpeg
        train/PNEUMONIA/person1_bacteria_2.jpeg
        val/NORMAL/NORMAL2-IM-1427-0001.jpeg
        val/PNEUMONIA/person1946_bacteria_4874.jpeg
        test/NORMAL/IM-0001-0001.jpeg
        test/PNEUMONIA/person1_virus_6.jpeg
        """,
    )
    table = read_table(str(root))
    assert is_said(table, "Kermany's chest X-rays")
    assert rows(table, "patient", "split") == [
        ("IM-0001-0001.jpeg", "test-IM-0001", "test"),
        ("person1_virus_6.jpeg", "test-person1", "test"),
        ("IM-0115-0001.jpeg", "train-IM-0115", ""),
        ("NORMAL2-IM-0381-0001.jpeg", "train-NORMAL2-IM-0381", ""),
        ("person1_bacteria_1.jpeg", "train-person1", ""),
        ("person1_bacteria_2.jpeg", "train-person1", ""),
        ("NORMAL2-IM-1427-0001.jpeg", "train-NORMAL2-IM-1427", ""),
        ("person1946_bacteria_4874.jpeg", "train-person1946", ""),
    ]
    assert any("the 2 images of val" in note for note in table.notes)


def test_busi_and_covid19_radiography_are_read_without_their_masks(build):
    busi = build(
        "Dataset_BUSI_with_GT",
        """
        benign/benign (1).png
        benign/benign (1)_mask.png
        benign/benign (2).png
        benign/benign (2)_mask_1.png
        malignant/malignant (1).png
        malignant/malignant (1)_mask.png
        malignant/malignant (2).png
        """,
    )
    assert is_said(read_table(str(busi)), "BUSI")
    assert is_said(read_table(str(busi.parent)), "BUSI")
    assert [label for _, label in rows(read_table(str(busi)), "label")] == [
        "benign", "benign", "malignant", "malignant",
    ]  # fmt: skip
    covid = build(
        "COVID-19_Radiography_Dataset",
        """
        COVID/images/COVID-1.png
        COVID/images/COVID-2.png
        COVID/masks/COVID-1.png
        COVID/masks/COVID-2.png
        Viral Pneumonia/images/Viral Pneumonia-1.png
        Viral Pneumonia/images/Viral Pneumonia-2.png
        Viral Pneumonia/masks/Viral Pneumonia-1.png
        COVID.metadata.xlsx: x
        """,
    )
    table = read_table(str(covid))
    assert is_said(table, "COVID-19 Radiography")
    assert table.classes == ("COVID", "Viral Pneumonia")
    assert len(table.frame) == 4


def medmnist_file(folder: Path, name: str, labels: np.ndarray, shape: tuple[int, ...]) -> Path:
    random = np.random.default_rng(0)
    arrays = {}
    for split in medmnist.SPLITS:
        arrays[f"{split}_images"] = random.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
        arrays[f"{split}_labels"] = labels
    np.savez(folder / name, **arrays)
    return folder / name


@pytest.mark.parametrize("shape", [(28, 28), (28, 28, 3)])
def test_medmnist(tmp_path, shape):
    labels = np.array([[0], [1], [0], [1]], np.uint8)
    file = medmnist_file(tmp_path, "pneumoniamnist.npz", labels, shape)
    table = read_table(str(file))
    assert is_said(table, "MedMNIST")
    assert table.name == data_name(str(file)) == table.source == "pneumoniamnist"
    assert table.classes == ("normal", "pneumonia")
    assert table.frame["split"].value_counts().to_dict() == {"train": 4, "valid": 4, "test": 4}
    with np.load(file) as arrays:
        first = np.asarray(Image.open(table.files()[0]))
        assert (first == arrays["train_images"][0]).all()


def test_medmnist_with_findings_and_volumes(tmp_path):
    labels = np.eye(14, dtype=np.uint8)[:3]
    labels[0, 1], labels[2] = 1, 0
    table = read_table(str(medmnist_file(tmp_path, "chestmnist_64.npz", labels, (8, 8))))
    assert table.multi_label
    assert table.frame["label"].tolist()[:3] == [
        "atelectasis|cardiomegaly", "cardiomegaly", "No Finding",
    ]  # fmt: skip
    volumes = medmnist_file(tmp_path, "organmnist3d.npz", labels[:, :1], (8, 8, 8))
    with pytest.raises(MedtlError, match="holds volumes"):
        read_table(str(volumes))


@pytest.mark.parametrize("place", [60, -60])
def test_a_damaged_medmnist_file_is_refused_in_one_line(tmp_path, place):
    file = medmnist_file(tmp_path, "pathmnist.npz", np.zeros((4, 1), np.uint8), (8, 8))
    data = bytearray(file.read_bytes())
    data[place : place + 40] = bytes(40)
    file.write_bytes(data)
    with pytest.raises(MedtlError, match="cannot be read") as refusal:
        read_table(str(file))
    assert "\n" not in str(refusal.value)


def test_patch_camelyon(tmp_path):
    h5py = pytest.importorskip("h5py")
    random = np.random.default_rng(0)
    for split in ("train", "valid", "test"):
        start = tmp_path / f"camelyonpatch_level_2_split_{split}"
        with h5py.File(f"{start}_x.h5", "w") as file:
            file["x"] = random.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
        with h5py.File(f"{start}_y.h5", "w") as file:
            file["y"] = np.array([0, 1, 0, 1], np.uint8).reshape(4, 1, 1, 1)
        slides = [f"camelyon16_{split}_{number // 2}" for number in range(4)]
        meta = pd.DataFrame({"coord_y": 1, "coord_x": 2, "center_tumor_patch": True, "wsi": slides})
        meta.to_csv(f"{start}_meta.csv")
    for place in (tmp_path, tmp_path / "camelyonpatch_level_2_split_train_x.h5"):
        table = read_table(str(place))
        assert is_said(table, "PatchCamelyon")
        assert table.classes == ("no tumour", "tumour")
        assert table.frame["patient"].nunique() == 6
        assert table.frame["split"].value_counts().to_dict() == {"train": 4, "valid": 4, "test": 4}
