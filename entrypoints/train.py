"""Train one model, evaluate it once on the test split, and log it."""

import click

from entrypoints.cli import command, enter
from medtl.settings.training import TrainSettings

LIST_CUTOFFS = click.Option(
    ["--list-cutoffs"],
    is_flag=True,
    help="Print the cut-offs of --architecture with what each costs, and end.",
)

train = command(TrainSettings, "train", __doc__)


def train_or_list(list_cutoffs: bool, architecture: str, image_size: int, **values: object) -> None:
    """Trains, or prints the cut-offs of the network."""
    if list_cutoffs:
        from medtl.commands.list_cutoffs import list_cutoffs as print_cutoffs

        print_cutoffs(architecture, image_size)
    elif train.callback is not None:
        train.callback(architecture=architecture, image_size=image_size, **values)


main = click.Command(
    "train", callback=train_or_list, params=[*train.params, LIST_CUTOFFS], help=__doc__
)

if __name__ == "__main__":
    enter(main)
