"""Run a study of the papers, or a grid of your own, and write its report."""

from entrypoints.cli import command, enter
from medtl.settings.comparison import CompareSettings

main = command(CompareSettings, "compare", __doc__)

if __name__ == "__main__":
    enter(main)
