package birthmark;

import com.microsoft.azure.sdk.iot.device.ClientOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubClientProtocol;
import com.microsoft.azure.sdk.iot.device.IotHubMessageResult;
import com.microsoft.azure.sdk.iot.device.Message;
import com.microsoft.azure.sdk.iot.device.transport.IotHubConnectionStatus;
import com.microsoft.azure.sdk.iot.device.twin.DirectMethodResponse;
import com.microsoft.azure.sdk.iot.device.twin.TwinCollection;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** Azure's device SDK for Java as a device of a hub. */
public final class HubDevice {
    private static final int METHOD_DONE = 200;

    private HubDevice() {
    }

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, HubDevice::run);
    }

    private static Object run(String operation) throws Exception {
        ClientOptions options = ClientOptions.builder().sslContext(Pem.context()).build();
        IotHubClientProtocol protocol = IotHubClientProtocol.valueOf(System.getenv("PROTOCOL"));
        DeviceClient client = new DeviceClient(System.getenv("CONNECTION_STRING"), protocol, options);
        try {
            if (!operation.equals("listen")) {
                client.open(false);
            }
            return run(client, operation);
        } finally {
            client.close();
        }
    }

    private static Object run(DeviceClient client, String operation) throws Exception {
        switch (operation) {
            case "publish" -> {
                client.sendEvent(new Message(System.getenv("PAYLOAD")));
                return Map.of("published", true);
            }
            case "twin" -> {
                TwinCollection reported = new TwinCollection();
                reported.put("valve", System.getenv("PAYLOAD"));
                client.subscribeToDesiredProperties((twin, nothing) -> { }, null);
                client.getTwin();
                client.updateReportedProperties(reported);
                return Map.of("reported", client.getTwin().getReportedProperties().get("valve"));
            }
            case "listen" -> {
                listen(client);
                return null;
            }
            default -> throw Program.unknownOperation(operation);
        }
    }

    /** Prints messages and methods until the input ends; each connection is told, so that a test sees the next one. */
    private static void listen(DeviceClient client) throws Exception {
        client.setConnectionStatusChangeCallback(change -> {
            if (change.getNewStatus() == IotHubConnectionStatus.CONNECTED) {
                Program.print(Map.of("connected", true));
            } else {
                String cause = String.valueOf(change.getCause());
                Program.print(Map.of("lost", change.getNewStatusReason().toString(), "cause", cause));
            }
        }, null);
        client.setMessageCallback((message, nothing) -> {
            Program.print(Map.of("payload", new String(message.getBytes(), StandardCharsets.UTF_8)));
            return IotHubMessageResult.COMPLETE;
        }, null);
        client.open(true);
        client.subscribeToMethods((name, payload, nothing) -> {
            Program.print(Map.of("method", name));
            return new DirectMethodResponse(METHOD_DONE, Map.of("done", true));
        }, null);
        Program.print(Map.of("subscribed", true));
        Program.inputEnded();
    }
}
