package birthmark;

import com.azure.core.amqp.AmqpRetryOptions;
import com.azure.messaging.eventhubs.EventHubClientBuilder;
import com.azure.messaging.eventhubs.EventHubConsumerAsyncClient;
import com.azure.messaging.eventhubs.EventHubProperties;
import com.azure.messaging.eventhubs.models.EventPosition;
import com.azure.messaging.eventhubs.models.PartitionEvent;
import java.time.Duration;
import java.util.Map;
import javax.net.ssl.SSLContext;

/** Azure's SDK for Java as a back end that reads a hub's telemetry from its Event Hubs-compatible endpoint. */
public final class EventHubs {
    /** The client itself retries a handshake for ever. */
    private static final Duration PATIENCE = Duration.ofSeconds(10);

    private EventHubs() {
    }

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, EventHubs::run);
    }

    private static Object run(String operation) throws Exception {
        SSLContext.setDefault(Pem.context());
        EventHubClientBuilder builder = new EventHubClientBuilder().connectionString(System.getenv("EVENT_HUB"))
            .consumerGroup(System.getenv("CONSUMER_GROUP")).retryOptions(new AmqpRetryOptions().setMaxRetries(0));
        try (EventHubConsumerAsyncClient consumer = builder.buildAsyncConsumerClient()) {
            EventHubProperties hub = consumer.getEventHubProperties().block(PATIENCE);
            switch (operation) {
                case "describe" -> {
                    return Map.of("name", hub.getName(), "partitions", hub.getPartitionIds().stream().toList());
                }
                case "listen" -> {
                    for (String partition : hub.getPartitionIds()) {
                        consumer.receiveFromPartition(partition, EventPosition.earliest())
                            .subscribe(EventHubs::tell, Program::exit);
                    }
                    Program.inputEnded();
                    return null;
                }
                default -> throw Program.unknownOperation(operation);
            }
        }
    }

    private static void tell(PartitionEvent got) {
        var event = got.getData();
        String device = String.valueOf(event.getSystemProperties().get("iothub-connection-device-id"));
        Program.print(Map.of("body", event.getBodyAsString(), "device", device, "sequence", event.getSequenceNumber()));
    }
}
