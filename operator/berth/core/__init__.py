"""The functional core: facts in, decisions out. No I/O, no clock, no logger; the standard library alone."""
