"""Print and export the OCL dictionary: the best cut-off found so far, for each data set."""

from entrypoints.cli import command, enter
from medtl.settings.evaluation import DictionarySettings

main = command(DictionarySettings, "dictionary", __doc__)

if __name__ == "__main__":
    enter(main)
