"""Predict unlabelled images: a folder, a table or a tree of DICOM files in, one table out."""

from entrypoints.cli import command, enter
from medtl.settings.prediction import PredictSettings

main = command(PredictSettings, "predict", __doc__)

if __name__ == "__main__":
    enter(main)
