"""Print and export the OCL dictionary: the best cut-off found so far, for each data set."""

from __future__ import annotations

import pandas as pd

from medtl.networks.registry import check_architecture
from medtl.pipeline.parameter_checks import check_output
from medtl.reporting.csv_export import write_csv
from medtl.settings.evaluation import DictionarySettings
from medtl.tracking.addresses import run_addresses
from medtl.tracking.artifacts import log_table
from medtl.tracking.runs import tracked_run
from medtl.tuning.cutoff_dictionary import Entry, known_entries


def dictionary(settings: DictionarySettings) -> None:
    """Prints a row for each architecture, weights and data set, and writes them as CSV."""
    with tracked_run("dictionary", settings) as run:
        if settings.architecture:
            check_architecture(settings.architecture)
        output = check_output(settings.output) if settings.output else None
        table = best_of_each(known_entries())
        if settings.architecture:
            table = table[table["architecture"] == settings.architecture]
        if output is not None:
            write_csv(table, output)
        log_table(table, "dictionary/dictionary.csv")
    if table.empty:
        print("no finished search yet: the dictionary grows with every tune")
    else:
        print(table.drop(columns=["fingerprint", "run_id"]).to_string(index=False))
    print("\n".join(run_addresses(run.info.run_id)))


def best_of_each(entries: list[Entry]) -> pd.DataFrame:
    """Returns the entry with the best score of each architecture, weights and data set."""
    rows = [
        {
            "architecture": entry.architecture,
            "weights": entry.weights,
            "data": entry.data,
            "fingerprint": entry.fingerprint,
            "cutoff": entry.cutoff,
            "recipe": ", ".join(f"{name}={value}" for name, value in entry.recipe.items()),
            "valid_auroc": entry.valid_auroc,
            "run_id": entry.run_id,
        }
        for entry in entries
    ]
    columns = ["architecture", "weights", "data", "fingerprint", "cutoff", "recipe",
               "valid_auroc", "run_id"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    same = ["architecture", "weights", "fingerprint"]
    table["searches"] = table.groupby(same)["run_id"].transform("count").astype(int)
    best = table.sort_values("valid_auroc", ascending=False).drop_duplicates(same)
    return best.sort_values(["architecture", "weights", "data"]).reset_index(drop=True)
