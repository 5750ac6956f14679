"""Move the champion alias: by the gate, by hand, or back."""

from entrypoints.door import command, enter
from medtl.settings import PromoteSettings

main = command(PromoteSettings, "medtl.jobs.promote", __doc__)

if __name__ == "__main__":
    enter(main)
