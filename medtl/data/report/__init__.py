"""What is known of a data set before anything is trained on it: pixels and tables in, facts out."""

from medtl.data.report.facts import DataFacts, data_facts

__all__ = ["DataFacts", "data_facts"]
