"""Python client of Assay's services."""
