"""Make universal perturbations against a trained model, and count what they fool."""

from entrypoints.door import command, enter
from medtl.settings import PerturbSettings

main = command(PerturbSettings, "medtl.jobs.perturb", __doc__)

if __name__ == "__main__":
    enter(main)
