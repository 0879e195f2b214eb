package birthmark;

import com.hivemq.client.mqtt.MqttClient;
import com.hivemq.client.mqtt.MqttGlobalPublishFilter;
import com.hivemq.client.mqtt.datatypes.MqttQos;
import com.hivemq.client.mqtt.mqtt3.Mqtt3AsyncClient;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.TimeUnit;

/** HiveMQ's client of MQTT 3.1.1 as a device. */
public final class HiveMqtt3 extends MqttDevice {
    private Mqtt3AsyncClient client;

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, name -> new HiveMqtt3().run(name));
    }

    @Override
    void connect(boolean reconnects) throws Exception {
        var builder = MqttClient.builder().useMqttVersion3().identifier(System.getenv("CLIENT_ID"));
        builder = builder.serverHost(host()).serverPort(port());
        builder = builder.sslConfig().trustManagerFactory(Pem.trust("CA_FILE"))
            .keyManagerFactory(Pem.keys()).applySslConfig();
        String user = Program.setting("USERNAME");
        String password = Program.setting("PASSWORD");
        if (password != null) {
            byte[] secret = password.getBytes(StandardCharsets.UTF_8);
            builder = builder.simpleAuth().username(user).password(secret).applySimpleAuth();
        } else if (user != null) {
            builder = builder.simpleAuth().username(user).applySimpleAuth();
        }
        if (reconnects) {
            builder = builder.addConnectedListener(context -> connected())
                .addDisconnectedListener(context -> lost(context.getCause())).automaticReconnect()
                .initialDelay(1, TimeUnit.SECONDS).maxDelay(1, TimeUnit.SECONDS).applyAutomaticReconnect();
        }
        client = builder.buildAsync();
        client.publishes(MqttGlobalPublishFilter.ALL,
            got -> receive(got.getTopic().toString(), got.getPayloadAsBytes()));
        client.connect().get(Program.PATIENCE_S, TimeUnit.SECONDS);
    }

    @Override
    void subscribe(String filter) throws Exception {
        var sent = client.subscribeWith().topicFilter(filter).qos(MqttQos.AT_LEAST_ONCE).send();
        sent.get(Program.PATIENCE_S, TimeUnit.SECONDS);
    }

    @Override
    void publish(String topic, byte[] payload) throws Exception {
        var sent = client.publishWith().topic(topic).qos(MqttQos.AT_LEAST_ONCE).payload(payload).send();
        sent.get(Program.PATIENCE_S, TimeUnit.SECONDS);
    }
}
