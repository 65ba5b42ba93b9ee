"""What every room uses: bars, forecasts, errors, files, metrics, commands."""
