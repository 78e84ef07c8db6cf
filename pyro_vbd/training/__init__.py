"""The training loop and what stands around it: data, schedules, checkpoints, several processes, several runs at once."""
