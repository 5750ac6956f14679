"""Search optimizer, learning rate and cut-off layer; evaluate and register the best model."""

from entrypoints.door import command, enter
from medtl.jobs.tune import tune
from medtl.settings import TuneSettings

main = command(TuneSettings, tune, __doc__)

if __name__ == "__main__":
    enter(main)
