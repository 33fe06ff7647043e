"""From a folder of brain MRI scans to a trained, measured tumour classifier."""

__version__ = "0.1.0"
