"""Statistics on plain arrays: intervals, correlations, Krippendorff's alpha, prediction-powered means."""
