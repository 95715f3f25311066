"""Runs as tables, and the page that compares them."""
