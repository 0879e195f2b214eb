"""IoT Hub's decisions, pure."""
