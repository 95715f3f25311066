"""A run's record: declared metrics, ``metrics.jsonl``, its W&B mirror, and the run directory."""
