package birthmark;

import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.crt.io.Pkcs11Lib;
import software.amazon.awssdk.crt.io.TlsContextPkcs11Options;
import software.amazon.awssdk.crt.mqtt.MqttClientConnection;
import software.amazon.awssdk.crt.mqtt.MqttClientConnectionEvents;
import software.amazon.awssdk.crt.mqtt.MqttMessage;
import software.amazon.awssdk.crt.mqtt.OnConnectionSuccessReturn;
import software.amazon.awssdk.crt.mqtt.QualityOfService;
import software.amazon.awssdk.iot.AwsIotMqttConnectionBuilder;

/** The client of MQTT 3.1.1 in AWS's device SDK for Java as a device. */
public final class AwsMqtt3 extends MqttDevice implements MqttClientConnectionEvents {
    private MqttClientConnection client;
    private boolean tells;

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, name -> new AwsMqtt3().run(name));
    }

    /** Returns where the token has the device's key, or null if it is in a file. */
    static TlsContextPkcs11Options token() {
        if (Program.setting("PKCS11_MODULE") == null) {
            return null;
        }
        return new TlsContextPkcs11Options(new Pkcs11Lib(System.getenv("PKCS11_MODULE")))
            .withTokenLabel(System.getenv("PKCS11_TOKEN")).withUserPin(System.getenv("PKCS11_PIN"))
            .withPrivateKeyObjectLabel(System.getenv("PKCS11_KEY"))
            .withCertificateFilePath(System.getenv("CERT_FILE"));
    }

    @Override
    void connect(boolean reconnects) throws Exception {
        tells = reconnects;
        TlsContextPkcs11Options token = token();
        AwsIotMqttConnectionBuilder builder = token == null
            ? AwsIotMqttConnectionBuilder.newMtlsBuilderFromPath(System.getenv("CERT_FILE"), System.getenv("KEY_FILE"))
            : AwsIotMqttConnectionBuilder.newMtlsPkcs11Builder(token);
        client = builder.withCertificateAuthorityFromPath(null, System.getenv("CA_FILE"))
            .withEndpoint(host()).withPort(port()).withClientId(System.getenv("CLIENT_ID")).withCleanSession(true)
            .withReconnectTimeoutSecs(1, 1).withConnectionEventCallbacks(this).build();
        client.onMessage(got -> receive(got.getTopic(), got.getPayload()));
        client.connect().get(Program.PATIENCE_S, TimeUnit.SECONDS);
    }

    @Override
    void subscribe(String filter) throws Exception {
        client.subscribe(filter, QualityOfService.AT_LEAST_ONCE).get(Program.PATIENCE_S, TimeUnit.SECONDS);
    }

    @Override
    void publish(String topic, byte[] payload) throws Exception {
        MqttMessage message = new MqttMessage(topic, payload, QualityOfService.AT_LEAST_ONCE);
        client.publish(message).get(Program.PATIENCE_S, TimeUnit.SECONDS);
    }

    @Override
    public void onConnectionSuccess(OnConnectionSuccessReturn result) {
        if (tells) {
            connected();
        }
    }

    @Override
    public void onConnectionInterrupted(int code) {
    }

    @Override
    public void onConnectionResumed(boolean hasSession) {
    }
}
