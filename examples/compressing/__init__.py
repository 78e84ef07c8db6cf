"""Parts of compress.py."""
