"""Settings of predictions on unlabelled images."""

from __future__ import annotations

from dataclasses import dataclass

from medtl.errors import ParameterError
from medtl.settings.data import check_columns
from medtl.settings.fields import DATA, RECORD, Settings, check_device, option

PHANTOM_MODEL = "models:/medtl-phantoms@champion"


@dataclass(frozen=True)
class PredictSettings(Settings):
    """A model on unlabelled images."""

    data: str = option(
        "phantoms",
        "folder of images or DICOM files at any depth, a table such as CSV, or an image; phantoms "
        "draws new ones, which no model was trained on",
        changes_result=True,
        decides=DATA,
        place=True,
    )
    model: str = option(PHANTOM_MODEL, "MLflow URI of the model", changes_result=True)
    output: str = option(
        "predictions.csv",
        "the table, or a folder for it; written as CSV and, beside it, as Parquet",
        changes_result=True,
        decides=RECORD,
        place=True,
    )
    heatmaps: bool = option(
        False,
        "true writes a heat map of each image into a folder beside the table",
        changes_result=True,
    )
    columns: str = option(
        "",
        "columns of a table, as path:image_id, or case:study,modality:series,path:file",
        changes_result=True,
        decides=DATA,
    )
    path_pattern: str = option(
        "",
        "path of an image, as images/{}.jpg; {} stands for the value of the column path",
        changes_result=True,
        decides=DATA,
    )
    outside: str = option(
        "refuse",
        "paths that lead out of the folder of a table, themselves or by a link",
        choices=("refuse", "allow"),
        changes_result=False,
        decides=DATA,
    )
    device: str = option("auto", "auto, cpu, cuda or cuda:N", changes_result=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_device(self.device)
        check_columns(self.columns)
        if self.path_pattern and "{}" not in self.path_pattern:
            allowed = "a path with {} for the value of the column path, as images/{}.jpg"
            raise ParameterError("path_pattern", self.path_pattern, allowed)
        if not self.model:
            raise ParameterError("model", self.model, f"an MLflow URI, as {PHANTOM_MODEL}")
        if not self.output:
            raise ParameterError("output", self.output, "a CSV file, or a folder")
