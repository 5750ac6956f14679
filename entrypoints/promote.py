"""Move the champion alias: by the gate, by hand, or back."""

from entrypoints.cli import command, enter
from medtl.settings.evaluation import PromoteSettings

main = command(PromoteSettings, "promote", __doc__)

if __name__ == "__main__":
    enter(main)
