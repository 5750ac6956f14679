"""Print and export the OCL dictionary: the best cut-off found so far, for each data set."""

from entrypoints.door import command, enter
from medtl.settings import DictionarySettings

main = command(DictionarySettings, "medtl.jobs.dictionary", __doc__)

if __name__ == "__main__":
    enter(main)
