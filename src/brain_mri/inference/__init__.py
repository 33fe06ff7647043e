"""The trained classifier as an engine that needs no TensorFlow."""
