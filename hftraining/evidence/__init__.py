"""What may be believed: leak proof, null band, intervals, scores, deflation and verdict."""
