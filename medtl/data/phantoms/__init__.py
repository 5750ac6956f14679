"""Phantoms: the embedded data sets, drawn by code; they look like images of patients, no more."""

from medtl.data.phantoms.sets import (
    CASES,
    FINDINGS,
    NAMES,
    SOURCE,
    TARGET,
    phantoms_table,
    write_axial_phantoms,
    write_chest_phantoms,
    write_finding_phantoms,
    write_head_phantoms,
)

__all__ = [
    "CASES",
    "FINDINGS",
    "NAMES",
    "SOURCE",
    "TARGET",
    "phantoms_table",
    "write_axial_phantoms",
    "write_chest_phantoms",
    "write_finding_phantoms",
    "write_head_phantoms",
]
