"""Train one model, evaluate it once on the test split, and log it."""

from entrypoints.door import command, enter
from medtl.settings import TrainSettings

main = command(TrainSettings, "medtl.jobs.train", __doc__)

if __name__ == "__main__":
    enter(main)
