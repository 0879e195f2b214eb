"""What an operator's program does: give an IoT Edge device and its modules their configuration, by azure-iot-hub.

    python examples/edge_configure.py DEVICE CONTENT.json

CONTENT.json is what Azure calls a deployment manifest: `{"modulesContent": {"MODULE": {"properties.desired": …}}}`.
"""

import json
import os
import sys
from pathlib import Path

from azure.iot.hub import IoTHubConfigurationManager
from azure.iot.hub.models import ConfigurationContent

if __name__ == "__main__":
    device, file = sys.argv[1:3]
    manager = IoTHubConfigurationManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
    content = json.loads(Path(file).read_text())
    manager.apply_configuration_on_edge_device(device, ConfigurationContent(modules_content=content["modulesContent"]))
    print(f"{device}: {', '.join(sorted(content['modulesContent']))}")
