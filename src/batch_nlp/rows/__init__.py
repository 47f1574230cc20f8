"""Rows: read, join, deduplicate and validate; may drop rows, learn nothing."""
