"""Rollout: sampling groups of completions from a prompt that is encoded once."""
