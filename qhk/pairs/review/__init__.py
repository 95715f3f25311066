"""A local web page on which people confirm degraded pairs."""
