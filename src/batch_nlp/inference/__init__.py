"""The inference pipeline: new messages in, predictions out, and whether the model still fits."""
