"""Parts of the training step: memory, health, optimizers and schedules."""
