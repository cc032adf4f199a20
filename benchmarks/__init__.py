"""What txstore costs: against upstream's store, against the bare writes, against a device's flush.

``python -m benchmarks`` measures everything, prints a table, and writes ``results.json`` beside
this file.  ``docs/performance.md`` shows the figures, and says what to make of them.
"""
