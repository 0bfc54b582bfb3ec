"""One module a verb: the functions that Python users call, wiring the rooms below."""
