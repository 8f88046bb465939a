"""Turn rows and options into a version. Knows neither HTTP nor the queue."""
