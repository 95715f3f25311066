"""Many runs as one sweep: planned, frozen, started here or on a cluster, watched, resumed, averaged."""
