"""Fine-tuning: its start, its schedules and losses, and inference with what it made."""
