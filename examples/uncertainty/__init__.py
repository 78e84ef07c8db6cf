"""Parts of calibration.py."""
