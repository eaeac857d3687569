"""The command line: `berth operator | agent | webhook | ...`."""
