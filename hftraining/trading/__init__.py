"""What a decision would have earned: policies, the fill engine, metrics."""
