"""Parts of mcmc_ground_truth.py."""
