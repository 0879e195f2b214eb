package birthmark;

import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;

/** What a device does with any MQTT client. */
abstract class MqttDevice {
    private final BlockingQueue<Message> received = new LinkedBlockingQueue<>();
    private String operation;

    /** Connects; a client that is to reconnect by itself calls {@link #connected} at each connection. */
    abstract void connect(boolean reconnects) throws Exception;

    abstract void subscribe(String filter) throws Exception;

    abstract void publish(String topic, byte[] payload) throws Exception;

    final Object run(String name) throws Exception {
        operation = name;
        switch (name) {
            case "publish" -> {
                connect(false);
                publish();
                return null;
            }
            case "exchange" -> {
                connect(false);
                subscribe(System.getenv("SUBSCRIBE"));
                publish();
                return received.poll(Program.PATIENCE_S, TimeUnit.SECONDS);
            }
            case "listen", "answer" -> {
                connect(true);
                Thread teller = new Thread(this::tell);
                teller.setDaemon(true);
                teller.start();
                Program.inputEnded();
                return null;
            }
            default -> throw Program.unknownOperation(name);
        }
    }

    /** Subscribes again. */
    final void connected() {
        inThread(() -> {
            subscribe(System.getenv("SUBSCRIBE"));
            Program.print(Map.of("subscribed", true));
        });
    }

    final void lost(Throwable cause) {
        Program.print(Map.of("lost", String.valueOf(cause)));
    }

    final void receive(String topic, byte[] payload) {
        received.add(new Message(topic, new String(payload, StandardCharsets.UTF_8)));
    }

    static String host() {
        return System.getenv("HOST").split(":")[0];
    }

    static int port() {
        return Integer.parseInt(System.getenv("HOST").split(":")[1]);
    }

    private void publish() throws Exception {
        publish(System.getenv("PUBLISH"), payload());
    }

    private void tell() {
        while (true) {
            try {
                Message message = received.take();
                Program.print(message);
                if (operation.equals("answer")) {
                    String parameters = message.topic.substring(message.topic.indexOf('?'));
                    publish(System.getenv("PUBLISH") + parameters, payload());
                }
            } catch (Exception error) {
                Program.exit(error);
            }
        }
    }

    private static byte[] payload() {
        return System.getenv().getOrDefault("PAYLOAD", "").getBytes(StandardCharsets.UTF_8);
    }

    /** Runs a step outside of the client's own threads, which it would block. */
    private static void inThread(Step step) {
        new Thread(() -> {
            try {
                step.run();
            } catch (Exception error) {
                Program.exit(error);
            }
        }).start();
    }

    private interface Step {
        void run() throws Exception;
    }

    private record Message(String topic, String payload) {
    }
}
