"""Training: the step, the loop around it, the supervised cold start, checkpoints."""
