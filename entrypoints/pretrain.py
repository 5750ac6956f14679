"""Pretrain a backbone on any labelled source, and register it for transfer."""

from entrypoints.cli import command, enter
from medtl.settings.training import PretrainSettings

main = command(PretrainSettings, "pretrain", __doc__)

if __name__ == "__main__":
    enter(main)
