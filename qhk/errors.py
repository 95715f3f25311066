"""The one exception for what a user can mend."""

from __future__ import annotations


class UserError(ValueError):
    """Raised for a user's mistake: a key, file, value or command that cannot be worked with.

    The message is one line that names the key or file, the value, and the fix. The command line prints it
    without a traceback and exits with code 2; every other exception is a defect and keeps its traceback.
    """
