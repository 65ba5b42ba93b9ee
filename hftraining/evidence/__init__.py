"""What may be believed: null bands, intervals, scores, deflation and a verdict."""
