"""Search architecture, cut-off layer, optimizer, learning rate; evaluate and register the best."""

from entrypoints.cli import command, enter
from medtl.settings.search import TuneSettings

main = command(TuneSettings, "tune", __doc__)

if __name__ == "__main__":
    enter(main)
