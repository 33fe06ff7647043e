"""Metrics and calibration with numpy and scikit-learn alone."""
