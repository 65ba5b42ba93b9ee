"""What the market said: bars, features, labels and training windows."""
