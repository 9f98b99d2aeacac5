"""Generates answers; best-of-N."""
