"""The training loop, its hyperparameters, cooldown branches, devices and processes."""
