package example;

import java.nio.charset.StandardCharsets;
import javax.net.ssl.SSLContext;
import org.eclipse.paho.client.mqttv3.MqttClient;
import org.eclipse.paho.client.mqttv3.MqttConnectOptions;
import org.eclipse.paho.client.mqttv3.MqttException;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

/** A device of IoT Hub that sends telemetry over MQTT. */
public final class Device {
    private Device() {
    }

    /** Connect to a hub with the certificate in a TLS context, and send one message. */
    public static void send(String hub, String name, SSLContext tls, String body) throws MqttException {
        MqttConnectOptions options = new MqttConnectOptions();
        options.setSocketFactory(tls.getSocketFactory());
        options.setUserName(hub + "/" + name + "/?api-version=2021-04-12");
        options.setMqttVersion(MqttConnectOptions.MQTT_VERSION_3_1_1);
        try (MqttClient client = new MqttClient("ssl://" + hub + ":8883", name, new MemoryPersistence())) {
            client.connect(options);
            client.publish("devices/" + name + "/messages/events/", body.getBytes(StandardCharsets.UTF_8), 1, false);
            client.disconnect();
        }
    }
}
