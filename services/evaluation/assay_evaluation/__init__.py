"""Benchmarks reward models, judges policies, runs studies."""
