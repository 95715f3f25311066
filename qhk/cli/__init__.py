"""The command line: composes the config, checks it, and hands typed settings to the rooms."""
