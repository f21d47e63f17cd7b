"""What the processes of a service count and measure, for Prometheus."""
