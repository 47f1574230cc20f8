"""Labels that came later, held against what was predicted and what was estimated."""
