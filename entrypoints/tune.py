"""Search architecture, cut-off layer, optimizer, learning rate; evaluate and register the best."""

from entrypoints.door import command, enter
from medtl.settings import TuneSettings

main = command(TuneSettings, "medtl.jobs.tune", __doc__)

if __name__ == "__main__":
    enter(main)
