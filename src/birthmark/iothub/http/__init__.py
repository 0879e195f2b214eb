"""IoT Hub over HTTPS: the service's interface (`service`), and the devices' own (`devices`)."""

from birthmark.iothub.http.url_routes import routes

__all__ = ["routes"]
