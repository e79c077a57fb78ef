"""Self-supervised pretraining: the trainer, its schedules, what watches it, and the encoder it writes."""
