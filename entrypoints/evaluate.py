"""Evaluate a registered or logged model on any data and split."""

from entrypoints.cli import command, enter
from medtl.settings.evaluation import EvaluateSettings

main = command(EvaluateSettings, "evaluate", __doc__)

if __name__ == "__main__":
    enter(main)
