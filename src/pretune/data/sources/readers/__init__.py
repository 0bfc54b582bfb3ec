"""One module a kind of file: ``read(item, columns, log)`` yields its records."""
