"""What is timed against what: the suites of `ontick bench`, the peers beside them, how work is counted."""
