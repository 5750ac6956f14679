"""The report of a study: numbers in, one self-contained page out."""

from medtl.evaluation.report.build import Report, Subject, report

__all__ = ["Report", "Subject", "report"]
