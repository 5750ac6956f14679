"""Evaluate a registered or logged model on any data and split."""

from entrypoints.door import command, enter
from medtl.settings import EvaluateSettings

main = command(EvaluateSettings, "medtl.jobs.evaluate", __doc__)

if __name__ == "__main__":
    enter(main)
