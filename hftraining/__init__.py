"""hftraining: transformers that forecast stocks, and say with evidence whether they would have made money."""
