"""What txstore costs: against upstream's store, against the bare writes, against a device's flush.

``python -m benchmarks`` measures everything, prints a table, and writes ``results.json`` and
``ratios.svg`` beside this file.  ``docs/performance.md`` says what is measured and what to make of
the figures.
"""
