"""Charts as SVG, made by the service, so that they need no script."""
