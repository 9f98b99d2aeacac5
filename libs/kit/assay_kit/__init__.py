"""What each Assay service stands on."""
