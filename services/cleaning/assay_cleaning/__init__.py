"""Labels preference pairs, turns round or drops what is wrong."""
