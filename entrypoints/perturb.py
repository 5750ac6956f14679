"""Make universal perturbations against a trained model, and count what they fool."""

from entrypoints.cli import command, enter
from medtl.settings.evaluation import PerturbSettings

main = command(PerturbSettings, "perturb", __doc__)

if __name__ == "__main__":
    enter(main)
