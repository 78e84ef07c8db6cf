"""How good predictions are: scores, calibration, selective prediction, and leave-one-out."""
