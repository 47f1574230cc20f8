"""Label user messages negative, neutral or positive, in batches that account for every row."""

__version__ = "0.1.0"
