"""The feature pipeline: rows in, features into the store."""
