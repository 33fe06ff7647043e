"""Networks, recipes, the training loop and the export of a trained classifier."""
