"""One module a verb: parses, calls a workflow, prints."""
