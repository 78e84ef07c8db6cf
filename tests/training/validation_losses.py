"""Validation losses that a test chooses."""

from pyro_vbd.training import epoch_end


def set_validation_losses(monkeypatch, losses):
    """Let the held-out data of each epoch have the next of these, whatever the model says."""
    left = iter(losses)
    monkeypatch.setattr(epoch_end, "summed_negative_log_likelihood", lambda *_: (next(left), 1))
