"""Search optimizer, learning rate and cut-off layer; evaluate and register the best model."""

from entrypoints.door import command, enter
from medtl.settings import TuneSettings

main = command(TuneSettings, "medtl.jobs.tune", __doc__)

if __name__ == "__main__":
    enter(main)
