"""Pairs: degraded copies made at scale, judged, reviewed, strengthened and built into a training set."""
