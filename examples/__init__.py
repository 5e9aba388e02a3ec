"""Worked examples on real digits: `python -m examples.small_batches`, `... .domain_shift`."""
