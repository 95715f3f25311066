"""A run's record: declared metrics, ``metrics.jsonl``, its mirrors, and the run directory."""
