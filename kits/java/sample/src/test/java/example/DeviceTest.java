package example;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;

import io.github.birthmark.testing.BirthmarkExtension;
import io.github.birthmark.testing.BirthmarkServer;
import java.util.Map;
import javax.net.ssl.SSLContext;
import org.eclipse.paho.client.mqttv3.MqttException;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.extension.ExtendWith;

@ExtendWith(BirthmarkExtension.class)
class DeviceTest {
    @Test
    void aDeviceSendsAMessage(BirthmarkServer server) throws MqttException {
        BirthmarkServer.Device pump = server.azureDevice("pump-1", Map.of("at", "hub"));
        SSLContext tls = server.sslContext(pump.certificateFile(), pump.keyFile());
        Device.send(pump.hubHost(), pump.name(), tls, "21.5");
        assertEquals("21.5", server.messages("pump-1", Map.of()).get(0).body());
    }

    @Test
    void aDisabledDeviceDoesNotConnect(BirthmarkServer server) {
        BirthmarkServer.Device pump = server.azureDevice("pump-1", Map.of("at", "hub"));
        SSLContext tls = server.sslContext(pump.certificateFile(), pump.keyFile());
        server.refuse("pump-1", "iothub.device_disabled");
        assertThrows(MqttException.class, () -> Device.send(pump.hubHost(), pump.name(), tls, "21.5"));
        assertEquals("iothub.device_disabled", server.why("pump-1", Map.of()).get(0).code());
    }
}
