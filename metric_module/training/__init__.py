"""The training step: global batch, memory, health, optimizers and schedules."""
