"""Reports: numbers in, one self-contained page out; of a study, and of a data set."""

from medtl.evaluation.report.build import Report, Subject, report
from medtl.evaluation.report.data import DataReport, data_report
from medtl.evaluation.report.refused import refusal_report

__all__ = ["DataReport", "Report", "Subject", "data_report", "refusal_report", "report"]
