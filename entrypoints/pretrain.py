"""Pretrain a backbone on any labelled source, and register it for transfer."""

from entrypoints.door import command, enter
from medtl.settings import PretrainSettings

main = command(PretrainSettings, "medtl.jobs.pretrain", __doc__)

if __name__ == "__main__":
    enter(main)
