package birthmark;

import org.eclipse.paho.client.mqttv3.IMqttDeliveryToken;
import org.eclipse.paho.client.mqttv3.MqttAsyncClient;
import org.eclipse.paho.client.mqttv3.MqttCallbackExtended;
import org.eclipse.paho.client.mqttv3.MqttConnectOptions;
import org.eclipse.paho.client.mqttv3.MqttMessage;
import org.eclipse.paho.client.mqttv3.persist.MemoryPersistence;

/** Paho's client of MQTT 3.1.1 as a device. */
public final class PahoMqtt3 extends MqttDevice implements MqttCallbackExtended {
    private static final long PATIENCE_MS = Program.PATIENCE_S * 1000L;
    private static final int MAX_DELAY_MS = 1000;
    private static final int REFUSED = 0x80;
    private MqttAsyncClient client;
    private boolean tells;

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, name -> new PahoMqtt3().run(name));
    }

    @Override
    void connect(boolean reconnects) throws Exception {
        tells = reconnects;
        String server = "ssl://" + System.getenv("HOST");
        client = new MqttAsyncClient(server, System.getenv("CLIENT_ID"), new MemoryPersistence());
        client.setCallback(this);
        MqttConnectOptions options = new MqttConnectOptions();
        options.setMqttVersion(MqttConnectOptions.MQTT_VERSION_3_1_1);
        options.setSocketFactory(Pem.context().getSocketFactory());
        options.setAutomaticReconnect(reconnects);
        options.setMaxReconnectDelay(MAX_DELAY_MS);
        options.setUserName(Program.setting("USERNAME"));
        if (Program.setting("PASSWORD") != null) {
            options.setPassword(System.getenv("PASSWORD").toCharArray());
        }
        client.connect(options).waitForCompletion(PATIENCE_MS);
    }

    @Override
    void subscribe(String filter) throws Exception {
        var token = client.subscribe(filter, 1);
        token.waitForCompletion(PATIENCE_MS);
        if (token.getGrantedQos()[0] == REFUSED) {
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
    public void connectionLost(Throwable cause) {
        lost(cause);
    }

    @Override
    public void deliveryComplete(IMqttDeliveryToken token) {
    }
}
