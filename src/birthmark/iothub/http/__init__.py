"""IoT Hub over HTTPS: the service API (`service`) and the device API (`devices`)."""

from birthmark.iothub.http.url_routes import routes

__all__ = ["routes"]
