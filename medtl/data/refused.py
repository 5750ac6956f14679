"""Data that is refused, with a table of all that is wrong: the line names a few of many."""

from __future__ import annotations

import pandas as pd

from medtl.errors import MedtlError


class RefusedDataError(MedtlError):
    """A data set that cannot be learned from as it is.

    Attributes:
        data: name of the data set.
        listing: name of the table.
        table: a row an image that is concerned.
    """

    def __init__(self, message: str, data: str, listing: str, table: pd.DataFrame) -> None:
        super().__init__(message)
        self.data = data
        self.listing = listing
        self.table = table

    def __reduce__(self) -> tuple:
        return RefusedDataError, (str(self), self.data, self.listing, self.table)
