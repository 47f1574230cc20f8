"""Does the model still fit? Each run held against what the model was judged on, without labels."""
