"""What users write, read: configurations of backtests in all their forms, to one specification."""
