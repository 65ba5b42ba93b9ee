"""The nouns and habits of everybody: bars, forecasts, errors, files, metrics, commands."""
