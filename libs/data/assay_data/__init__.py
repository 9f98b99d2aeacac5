"""Conversations and preference pairs: types, formats, the generated set."""
