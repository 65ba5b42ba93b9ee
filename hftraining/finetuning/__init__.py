"""Fine-tuning: from a base model and some of its stocks to a measured choice between them."""
