"""The policy: loading, prompt encoding, the packed forward, and what is read off its head."""
