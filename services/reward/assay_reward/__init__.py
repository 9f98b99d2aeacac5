"""Scores answers with reward models."""
