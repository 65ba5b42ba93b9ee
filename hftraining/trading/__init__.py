"""What a decision would have earned: the fill engine, metrics, rules of the literature."""
