"""Examples, benchmark adapters, degraded twins, prompts and the order in which a run sees them. No torch."""
