"""IoT Hub over HTTPS: the service API (`service_api`) and the device API (`device_api`)."""

from birthmark.iothub.http.url_routes import routes

__all__ = ["routes"]
