"""Train a model on the feature store, judge it, and put it in use when it is good enough."""
