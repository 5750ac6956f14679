"""Run a study of the papers, or a grid of your own, and write its report."""

from entrypoints.door import command, enter
from medtl.settings import CompareSettings

main = command(CompareSettings, "medtl.jobs.compare", __doc__)

if __name__ == "__main__":
    enter(main)
