package birthmark;

import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import software.amazon.awssdk.crt.CRT;
import software.amazon.awssdk.crt.io.TlsContextPkcs11Options;
import software.amazon.awssdk.crt.mqtt5.Mqtt5Client;
import software.amazon.awssdk.crt.mqtt5.Mqtt5ClientOptions.LifecycleEvents;
import software.amazon.awssdk.crt.mqtt5.OnAttemptingConnectReturn;
import software.amazon.awssdk.crt.mqtt5.OnConnectionFailureReturn;
import software.amazon.awssdk.crt.mqtt5.OnConnectionSuccessReturn;
import software.amazon.awssdk.crt.mqtt5.OnDisconnectionReturn;
import software.amazon.awssdk.crt.mqtt5.OnStoppedReturn;
import software.amazon.awssdk.crt.mqtt5.QOS;
import software.amazon.awssdk.crt.mqtt5.packets.ConnectPacket.ConnectPacketBuilder;
import software.amazon.awssdk.crt.mqtt5.packets.PublishPacket.PublishPacketBuilder;
import software.amazon.awssdk.crt.mqtt5.packets.SubscribePacket.SubscribePacketBuilder;
import software.amazon.awssdk.iot.AwsIotMqtt5ClientBuilder;

/** The client of MQTT 5 in AWS's device SDK for Java as a device. */
public final class AwsMqtt5 extends MqttDevice implements LifecycleEvents {
    private static final long DELAY_MS = 1000;
    private final CompletableFuture<Void> first = new CompletableFuture<>();
    private Mqtt5Client client;
    private boolean tells;

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, name -> new AwsMqtt5().run(name));
    }

    @Override
    void connect(boolean reconnects) throws Exception {
        tells = reconnects;
        TlsContextPkcs11Options token = AwsMqtt3.token();
        AwsIotMqtt5ClientBuilder builder = token == null
            ? AwsIotMqtt5ClientBuilder.newDirectMqttBuilderWithMtlsFromPath(
                host(), System.getenv("CERT_FILE"), System.getenv("KEY_FILE"))
            : AwsIotMqtt5ClientBuilder.newDirectMqttBuilderWithMtlsFromPkcs11(host(), token);
        builder.withCertificateAuthorityFromPath(null, System.getenv("CA_FILE")).withPort((long) port())
            .withConnectProperties(new ConnectPacketBuilder().withClientId(System.getenv("CLIENT_ID")))
            .withMinReconnectDelayMs(DELAY_MS).withMaxReconnectDelayMs(DELAY_MS).withLifeCycleEvents(this)
            .withPublishEvents((from, got) ->
                receive(got.getPublishPacket().getTopic(), got.getPublishPacket().getPayload()));
        client = builder.build();
        client.start();
        first.get(Program.PATIENCE_S, TimeUnit.SECONDS);
    }

    @Override
    void subscribe(String filter) throws Exception {
        var sent = client.subscribe(new SubscribePacketBuilder(filter, QOS.AT_LEAST_ONCE).build());
        var code = sent.get(Program.PATIENCE_S, TimeUnit.SECONDS).getReasonCodes().get(0);
        if (!code.name().startsWith("GRANTED")) {
            throw new IllegalStateException("the subscription was refused: " + code);
        }
    }

    @Override
    void publish(String topic, byte[] payload) throws Exception {
        var sent = client.publish(new PublishPacketBuilder(topic, QOS.AT_LEAST_ONCE, payload).build());
        sent.get(Program.PATIENCE_S, TimeUnit.SECONDS);
    }

    @Override
    public void onConnectionSuccess(Mqtt5Client from, OnConnectionSuccessReturn result) {
        first.complete(null);
        if (tells) {
            connected();
        }
    }

    @Override
    public void onConnectionFailure(Mqtt5Client from, OnConnectionFailureReturn result) {
        first.completeExceptionally(new IllegalStateException(CRT.awsErrorString(result.getErrorCode())));
    }

    @Override
    public void onDisconnection(Mqtt5Client from, OnDisconnectionReturn result) {
    }

    @Override
    public void onAttemptingConnect(Mqtt5Client from, OnAttemptingConnectReturn result) {
    }

    @Override
    public void onStopped(Mqtt5Client from, OnStoppedReturn result) {
    }
}
