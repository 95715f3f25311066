"""From completions to predictions on disk, correlations with intervals, and the table."""
