"""Pure decision rules of AWS IoT."""
