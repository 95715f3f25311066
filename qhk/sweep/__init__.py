"""Sweeps: many runs planned, frozen on disk, started here or on a cluster, reported on and resumed together.

``plan`` turns a command line into runs, ``manifest`` freezes them, ``launch`` starts them through ``local``
or ``slurm``, ``states`` reads where each stands; ``commands`` and ``resume`` are ``qhk sweep``.
"""
