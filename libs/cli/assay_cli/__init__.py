"""The assay command and the local stack."""
