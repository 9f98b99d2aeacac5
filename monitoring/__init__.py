"""Grafana dashboards as code, and what proves them: a real Prometheus over the real services under load.

`python -m monitoring.generate` writes the dashboards into the chart; `python -m monitoring.draw` draws them for the docs.
"""
