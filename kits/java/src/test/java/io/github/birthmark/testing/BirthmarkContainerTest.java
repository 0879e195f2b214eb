package io.github.birthmark.testing;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Test;
import org.testcontainers.DockerClientFactory;

class BirthmarkContainerTest {
    @Test
    void portsOfSdksAreFixed() {
        try (BirthmarkContainer container = new BirthmarkContainer().withHttpsPort443()) {
            assertEquals(List.of(8883, 8443, 8085), container.getExposedPorts());
            assertEquals(Set.of("8883:8883/tcp", "443:8443/tcp"), Set.copyOf(container.getPortBindings()));
        }
    }

    @Test
    void theServerInTheContainerHasADevice() {
        assumeTrue(DockerClientFactory.instance().isDockerAvailable(), "no container engine");
        try (BirthmarkContainer container = new BirthmarkContainer()) {
            container.start();
            container.birthmark("hub", "device", "create", "pump-1");
            assertTrue(container.birthmark("hub", "device", "key", "pump-1").contains("DeviceId=pump-1"));
            assertTrue(container.trustBundle().contains("BEGIN CERTIFICATE"));
        }
    }
}
