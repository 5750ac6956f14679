"""Error for refused data, with a table of all violations beside the short message."""

from __future__ import annotations

import pandas as pd

from medtl.errors import MedtlError


class RefusedDataError(MedtlError):
    """Data set with violations that prevent training.

    Attributes:
        data: name of the data set.
        listing: name of the table.
        table: one row per affected image.
    """

    def __init__(self, message: str, data: str, listing: str, table: pd.DataFrame) -> None:
        super().__init__(message)
        self.data = data
        self.listing = listing
        self.table = table

    def __reduce__(self) -> tuple:
        return RefusedDataError, (str(self), self.data, self.listing, self.table)
