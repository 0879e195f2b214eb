package birthmark;

import com.google.gson.Gson;
import com.microsoft.azure.sdk.iot.device.ClientOptions;
import com.microsoft.azure.sdk.iot.device.DeviceClient;
import com.microsoft.azure.sdk.iot.device.IotHubClientProtocol;
import com.microsoft.azure.sdk.iot.device.IotHubMessageResult;
import com.microsoft.azure.sdk.iot.device.Message;
import com.microsoft.azure.sdk.iot.device.transport.IotHubConnectionStatus;
import com.microsoft.azure.sdk.iot.device.twin.DirectMethodResponse;
import com.microsoft.azure.sdk.iot.device.twin.TwinCollection;
import java.io.OutputStream;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** Azure's device SDK for Java as a device of a hub. */
public final class HubDevice {
    private static final Gson JSON = new Gson();
    private static final int METHOD_DONE = 200;

    private HubDevice() {
    }

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) throws Exception {
        ClientOptions options = ClientOptions.builder().sslContext(Pem.context()).build();
        IotHubClientProtocol protocol = IotHubClientProtocol.valueOf(System.getenv("PROTOCOL"));
        DeviceClient client = new DeviceClient(System.getenv("CONNECTION_STRING"), protocol, options);
        int code = 0;
        try {
            if (arguments[0].equals("listen")) {
                listen(client);
            } else {
                client.open(false);
                run(client, arguments[0]);
            }
        } catch (Exception error) {
            print(Map.of("error", chain(error)));
            code = 1;
        }
        client.close();
        System.exit(code);
    }

    private static void run(DeviceClient client, String operation) throws Exception {
        switch (operation) {
            case "publish" -> {
                client.sendEvent(new Message(System.getenv("PAYLOAD")));
                print(Map.of("published", true));
            }
            case "twin" -> {
                TwinCollection reported = new TwinCollection();
                reported.put("valve", System.getenv("PAYLOAD"));
                client.subscribeToDesiredProperties((twin, nothing) -> { }, null);
                client.getTwin();
                client.updateReportedProperties(reported);
                print(Map.of("reported", client.getTwin().getReportedProperties().get("valve")));
            }
            default -> throw new IllegalArgumentException("no such operation: " + operation);
        }
    }

    /** Prints messages and methods until the input ends; each connection is told, so that a test sees the next one. */
    private static void listen(DeviceClient client) throws Exception {
        client.setConnectionStatusChangeCallback(change -> {
            if (change.getNewStatus() == IotHubConnectionStatus.CONNECTED) {
                print(Map.of("connected", true));
            } else {
                print(Map.of("lost", change.getNewStatusReason().toString(), "cause", String.valueOf(change.getCause())));
            }
        }, null);
        client.setMessageCallback((message, nothing) -> {
            print(Map.of("payload", new String(message.getBytes(), StandardCharsets.UTF_8)));
            return IotHubMessageResult.COMPLETE;
        }, null);
        client.open(true);
        client.subscribeToMethods((name, payload, nothing) -> {
            print(Map.of("method", name));
            return new DirectMethodResponse(METHOD_DONE, Map.of("done", true));
        }, null);
        print(Map.of("subscribed", true));
        System.in.transferTo(OutputStream.nullOutputStream());
    }

    private static synchronized void print(Map<String, ?> result) {
        System.out.println(JSON.toJson(result));
    }

    private static String chain(Throwable error) {
        return error.getCause() == null ? error.toString() : error + ": " + chain(error.getCause());
    }
}
