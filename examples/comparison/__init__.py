"""Parts of compare_priors.py."""
