package birthmark;

import java.nio.charset.StandardCharsets;
import org.eclipse.paho.mqttv5.client.IMqttToken;
import org.eclipse.paho.mqttv5.client.MqttAsyncClient;
import org.eclipse.paho.mqttv5.client.MqttCallback;
import org.eclipse.paho.mqttv5.client.MqttConnectionOptions;
import org.eclipse.paho.mqttv5.client.MqttDisconnectResponse;
import org.eclipse.paho.mqttv5.client.persist.MemoryPersistence;
import org.eclipse.paho.mqttv5.common.MqttException;
import org.eclipse.paho.mqttv5.common.MqttMessage;
import org.eclipse.paho.mqttv5.common.packet.MqttProperties;

/** Paho's client of MQTT 5 as a device. */
public final class PahoMqtt5 extends MqttDevice implements MqttCallback {
    private static final long PATIENCE_MS = Program.PATIENCE_S * 1000L;
    private static final int MAX_DELAY_MS = 1000;
    private static final int FIRST_REFUSAL = 0x80;
    private MqttAsyncClient client;
    private boolean tells;

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, name -> new PahoMqtt5().run(name));
    }

    @Override
    void connect(boolean reconnects) throws Exception {
        tells = reconnects;
        String server = "ssl://" + System.getenv("HOST");
        client = new MqttAsyncClient(server, System.getenv("CLIENT_ID"), new MemoryPersistence());
        client.setCallback(this);
        MqttConnectionOptions options = new MqttConnectionOptions();
        options.setSocketFactory(Pem.context().getSocketFactory());
        options.setAutomaticReconnect(reconnects);
        options.setMaxReconnectDelay(MAX_DELAY_MS);
        options.setUserName(Program.setting("USERNAME"));
        if (Program.setting("PASSWORD") != null) {
            options.setPassword(System.getenv("PASSWORD").getBytes(StandardCharsets.UTF_8));
        }
        client.connect(options).waitForCompletion(PATIENCE_MS);
    }

    @Override
    void subscribe(String filter) throws Exception {
        IMqttToken token = client.subscribe(filter, 1);
        token.waitForCompletion(PATIENCE_MS);
        if (token.getReasonCodes()[0] >= FIRST_REFUSAL) {
            throw new IllegalStateException("the subscription was refused");
        }
    }

    @Override
    void publish(String topic, byte[] payload) throws Exception {
        client.publish(topic, payload, 1, false).waitForCompletion(PATIENCE_MS);
    }

    @Override
    public void connectComplete(boolean reconnect, String server) {
        if (tells) {
            connected();
        }
    }

    @Override
    public void messageArrived(String topic, MqttMessage message) {
        receive(topic, message.getPayload());
    }

    @Override
    public void disconnected(MqttDisconnectResponse response) {
        lost(response.getException());
    }

    @Override
    public void mqttErrorOccurred(MqttException error) {
    }

    @Override
    public void deliveryComplete(IMqttToken token) {
    }

    @Override
    public void authPacketArrived(int reasonCode, MqttProperties properties) {
    }
}
