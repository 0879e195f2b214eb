package io.github.birthmark.testing;

import java.io.BufferedReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.lang.reflect.RecordComponent;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import javax.net.ssl.SSLContext;

/** A test server: DPS, IoT Hub, AWS IoT Core, and an EST CA. The command birthmark must be on the PATH. */
public final class BirthmarkServer implements AutoCloseable {
    /** Version of the kit, and of the birthmark command that it belongs to. */
    public static final String VERSION = "0.3.0";

    private static final long END_PATIENCE_S = 10;

    private final Process process;
    private final BufferedReader lines;
    private Map<String, Object> endpoints;

    /** A device of DPS or IoT Hub; its files or its symmetric key are empty. */
    public record Device(String name, String registrationId, String provisioningHost, String idScope, String hubHost,
        String certificateFile, String keyFile, String symmetricKey, String connectionString,
        Map<String, String> environment) { }

    /** A thing of AWS IoT Core. */
    public record Thing(String name, String endpoint, String region, String certificateId, String certificateFile,
        String keyFile, Map<String, String> environment) { }

    /** A certificate that the CA issued, and the credentials of its EST client. */
    public record EstIdentity(String name, String url, String username, String password, String certificateFile,
        String keyFile, Map<String, String> environment) { }

    /** A simulated secure element; environment has what its PKCS#11 library needs. */
    public record Chip(String name, String directory, String certificateFile, String keyFile, String keyLabel,
        Map<String, String> environment) { }

    /** A message at the hub, or one that a thing published to a topic. */
    public record Message(String topic, String body, String encoding) { }

    /** A rejected request of a device. */
    public record Refusal(String code, String message, String cause, String fix) { }

    private BirthmarkServer(Process process) {
        this.process = process;
        lines = process.inputReader(StandardCharsets.UTF_8);
        endpoints = read();
    }

    /** Start a server with further options of `birthmark test-server`. */
    public static BirthmarkServer start(String... options) {
        List<String> command = new ArrayList<>(List.of("birthmark", "test-server", "--json"));
        command.addAll(List.of(options));
        try {
            return new BirthmarkServer(
                new ProcessBuilder(command).redirectError(ProcessBuilder.Redirect.INHERIT).start());
        } catch (IOException error) {
            throw new UncheckedIOException("Install birthmark[server]", error);
        }
    }

    /** Return what `birthmark test-server --json` prints at its start. */
    public Map<String, Object> endpoints() {
        return endpoints;
    }

    /** Delete the devices, messages, and faults; addresses and CA remain. */
    public void reset() {
        endpoints = ask("reset", Map.of());
    }

    /** Create a device; fields: auth (x509, key), at (dps, hub), lasts, certificate_file, key_file. */
    public Device azureDevice(String name, Map<String, ?> fields) {
        return record(Device.class, ask("azure-device", named(name, fields)));
    }

    /** Create a thing with a certificate; fields: action, policy, lasts, certificate_file, key_file. */
    public Thing awsThing(String name, Map<String, ?> fields) {
        return record(Thing.class, ask("aws-thing", named(name, fields)));
    }

    /** Issue a certificate of the server's CA over EST. */
    public EstIdentity estIdentity(String name) {
        return record(EstIdentity.class, ask("est-identity", Map.of("name", name)));
    }

    /** Create a simulated secure element: se050, atecc608, or generic. */
    public Chip chip(String name, String kind) {
        return record(Chip.class, ask("chip", Map.of("name", name, "kind", kind)));
    }

    /** Reject a device with this code from now on. */
    public void refuse(String name, String code) {
        ask("refuse", Map.of("name", name, "code", code));
    }

    /** List the messages of a device; with the field at = aws, those of a thing. */
    public List<Message> messages(String name, Map<String, ?> fields) {
        return records(Message.class, ask("messages", named(name, fields)));
    }

    /** List the refusals of a device, the latest first, and wait for them; fields: code, limit, within_s. */
    public List<Refusal> why(String name, Map<String, ?> fields) {
        return records(Refusal.class, ask("why", named(name, fields)));
    }

    /** Run any command, such as expire, clock, or line. */
    public synchronized Map<String, Object> ask(String command, Map<String, ?> fields) {
        Map<String, Object> word = new LinkedHashMap<>(fields);
        word.put("do", command);
        try {
            process.outputWriter(StandardCharsets.UTF_8).append(Json.format(word)).append('\n').flush();
        } catch (IOException error) {
            throw new UncheckedIOException("the server has ended", error);
        }
        return read();
    }

    /** Return TLS settings that trust the server, with a certificate and key of the kit unless they are empty. */
    public SSLContext sslContext(String certificateFile, String keyFile) {
        return Tls.context(String.valueOf(endpoints.get("trust_bundle")), certificateFile, keyFile);
    }

    /** End the server. */
    @Override
    public void close() {
        try {
            process.outputWriter(StandardCharsets.UTF_8).close();
            process.waitFor(END_PATIENCE_S, TimeUnit.SECONDS);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
        } finally {
            process.destroyForcibly();
        }
    }

    @SuppressWarnings("unchecked")
    private Map<String, Object> read() {
        try {
            String line = lines.readLine();
            if (line == null) {
                throw new BirthmarkException("the server has ended");
            }
            Map<String, Object> told = (Map<String, Object>) Json.parse(line);
            if (told.containsKey("error")) {
                throw new BirthmarkException(told);
            }
            return told;
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    private static Map<String, Object> named(String name, Map<String, ?> fields) {
        Map<String, Object> word = new LinkedHashMap<>(fields);
        word.put("name", name);
        return word;
    }

    private static <T extends Record> List<T> records(Class<T> kind, Map<String, Object> told) {
        return ((List<?>) told.get("items")).stream().map(one -> record(kind, (Map<?, ?>) one)).toList();
    }

    /** Fill each component with the member of its name in snake case; texts of `files` are members, too. */
    private static <T extends Record> T record(Class<T> kind, Map<?, ?> told) {
        RecordComponent[] components = kind.getRecordComponents();
        Map<?, ?> files = told.get("files") instanceof Map<?, ?> found ? found : Map.of();
        Object[] values = Stream.of(components).map(one -> {
            String name = one.getName().replaceAll("[A-Z]", "_$0").toLowerCase();
            Object value = told.get(name) == null ? files.get(name) : told.get(name);
            return value == null ? "" : value;
        }).toArray();
        try {
            Class<?>[] types = Stream.of(components).map(RecordComponent::getType).toArray(Class<?>[]::new);
            return kind.getDeclaredConstructor(types).newInstance(values);
        } catch (ReflectiveOperationException error) {
            throw new IllegalStateException(error);
        }
    }
}
