"""One module a source of data: CSV, folders, published and embedded sets."""
