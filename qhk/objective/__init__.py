"""The mathematics of a training step: pure functions on tensors, nothing of ours imported but the types."""
