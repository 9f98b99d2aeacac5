"""The reward service against its peers, in one run: the same texts, the same thread count, the same model."""
