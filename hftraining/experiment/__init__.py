"""One run of any kind: its config, prepare, fit and conclude; fine-tuning, replay and records."""
