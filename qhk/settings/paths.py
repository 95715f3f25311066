"""Settings of where things lie."""

from __future__ import annotations

from qhk.settings.base import FileText, Node


class PathsSettings(Node):
    """Where runs, caches and real downloads live; relative paths start at the current directory."""

    outputs: FileText
    cache: FileText
    datasets: FileText
