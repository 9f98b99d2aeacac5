"""Further doors to the same scores, for clients of other systems."""
