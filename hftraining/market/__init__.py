"""What the market said: bars, features and windows."""
