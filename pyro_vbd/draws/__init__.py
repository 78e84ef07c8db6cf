"""Models run under many draws of a guide: for predictions, densities and ArviZ."""
