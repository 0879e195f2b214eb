"""Pure decision rules of IoT Hub."""
