"""What a decision would have earned: the fill engine, its rules, metrics and strategies of the literature."""
