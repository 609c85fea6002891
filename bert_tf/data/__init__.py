"""From text to batches: nothing here knows a model."""
