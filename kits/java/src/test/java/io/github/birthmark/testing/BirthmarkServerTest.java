package io.github.birthmark.testing;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

@ExtendWith(BirthmarkExtension.class)
class BirthmarkServerTest {
    @BeforeEach
    void aDeviceOfEveryTest(BirthmarkServer server) {
        server.azureDevice("pump-0", Map.of("at", "hub", "auth", "key"));
    }

    @Test
    void aDeviceSendsAMessageWithItsCertificate(BirthmarkServer server) throws Exception {
        BirthmarkServer.Device device = server.azureDevice("pump-1", Map.of("at", "hub"));
        assertEquals(204, send(server, device));
        assertEquals(List.of("hello"), server.messages("pump-1", Map.of()).stream().map(one -> one.body()).toList());
    }

    @Test
    void aTestHasNoDevicesOfAnother(BirthmarkServer server) {
        for (String name : List.of("pump-1", "pump-2")) {
            assertEquals(false, server.ask("known", Map.of("name", name)).get("known"));
        }
        assertEquals(true, server.ask("known", Map.of("name", "pump-0")).get("known"));
        server.azureDevice("pump-2", Map.of());
    }

    @Test
    void aDeviceWithASymmetricKeyHasAConnectionString(BirthmarkServer server) {
        BirthmarkServer.Device device = server.azureDevice("pump-1", Map.of("at", "hub", "auth", "key"));
        assertTrue(device.connectionString().endsWith(device.symmetricKey()));
        assertEquals("", device.keyFile());
        assertEquals("pump-1", device.environment().get("DEVICE_ID"));
    }

    @Test
    void aThingAnEstIdentityAndAChipHaveCertificates(BirthmarkServer server) throws IOException {
        BirthmarkServer.Chip chip = server.chip("chip-1", "atecc608");
        for (String file : List.of(server.awsThing("pump-1", Map.of()).certificateFile(),
                server.estIdentity("pump-2").certificateFile(), chip.certificateFile())) {
            assertTrue(Files.readString(Path.of(file)).contains("BEGIN CERTIFICATE"));
        }
        assertTrue(chip.environment().containsKey("BIRTHMARK_PKCS11_MODULE"));
    }

    @Test
    void aRefusedDeviceDoesNotSend(BirthmarkServer server) throws Exception {
        BirthmarkServer.Device device = server.azureDevice("pump-1", Map.of("at", "hub"));
        server.refuse("pump-1", "iothub.device_disabled");
        assertEquals(401, send(server, device));
        assertEquals("iothub.device_disabled", server.why("pump-1", Map.of()).get(0).code());
    }

    @Test
    void aRejectedCommandIsAnExceptionWithItsFix(BirthmarkServer server) {
        BirthmarkException rejected =
            assertThrows(BirthmarkException.class, () -> server.ask("expire", Map.of("name", "unknown")));
        assertEquals("testing.subject_unknown", rejected.code());
        assertTrue(rejected.getMessage().contains("azure-device"), rejected.getMessage());
    }

    @Test
    void aServerEndsWhenItIsClosed() throws IOException {
        String host;
        try (BirthmarkServer server = BirthmarkServer.start()) {
            host = String.valueOf(((Map<?, ?>) server.endpoints().get("iothub")).get("host"));
            new Socket(host, 8883).close();
        }
        assertThrows(IOException.class, () -> new Socket(host, 8883).close());
    }

    private static int send(BirthmarkServer server, BirthmarkServer.Device device) throws Exception {
        HttpClient client = HttpClient.newBuilder()
            .sslContext(server.sslContext(device.certificateFile(), device.keyFile())).build();
        Object port = ((Map<?, ?>) server.endpoints().get("iothub")).get("https_port");
        String path = "/devices/" + device.name() + "/messages/events?api-version=2020-09-30";
        URI uri = URI.create("https://" + device.hubHost() + ":" + ((Double) port).intValue() + path);
        HttpRequest request = HttpRequest.newBuilder(uri).POST(HttpRequest.BodyPublishers.ofString("hello")).build();
        return client.send(request, HttpResponse.BodyHandlers.discarding()).statusCode();
    }
}
