"""One function a metric, and the statistics around them."""
