package io.github.birthmark.testing;

import java.io.IOException;
import java.io.UncheckedIOException;
import java.time.Duration;
import org.testcontainers.containers.Container.ExecResult;
import org.testcontainers.containers.GenericContainer;
import org.testcontainers.containers.wait.strategy.Wait;
import org.testcontainers.utility.DockerImageName;

/** A container with a Birthmark server, from the image of `scripts/container`. */
public class BirthmarkContainer extends GenericContainer<BirthmarkContainer> {
    /** Port of MQTT; SDKs support no other. */
    public static final int MQTT_PORT = 8883;
    /** Port of HTTPS and of MQTT over WebSocket. */
    public static final int HTTPS_PORT = 8443;
    /** Port of EST. */
    public static final int EST_PORT = 8085;
    /** Name of the image. */
    public static final String IMAGE = "birthmark:" + BirthmarkServer.VERSION;

    /** Use the image of this version. */
    public BirthmarkContainer() {
        this(DockerImageName.parse(IMAGE));
    }

    /** Use an image of another name. */
    public BirthmarkContainer(DockerImageName image) {
        super(image);
        addExposedPorts(MQTT_PORT, HTTPS_PORT, EST_PORT);
        addFixedExposedPort(MQTT_PORT, MQTT_PORT);
        waitingFor(Wait.forHealthcheck().withStartupTimeout(Duration.ofMinutes(2)));
    }

    /** Map port 443 of this machine, for SDKs that support HTTPS and WebSocket on no other port. */
    public BirthmarkContainer withHttpsPort443() {
        addFixedExposedPort(443, HTTPS_PORT);
        return this;
    }

    /** Run a Birthmark command in the container, and return its output. */
    public String birthmark(String... arguments) {
        String[] command = new String[arguments.length + 1];
        command[0] = "birthmark";
        System.arraycopy(arguments, 0, command, 1, arguments.length);
        ExecResult done;
        try {
            done = execInContainer(command);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        } catch (InterruptedException error) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException(error);
        }
        if (done.getExitCode() != 0) {
            throw new BirthmarkException(done.getStderr());
        }
        return done.getStdout();
    }

    /** Return the server's CA certificates as PEM. */
    public String trustBundle() {
        return copyFileFromContainer("/data/trust.pem", file -> new String(file.readAllBytes()));
    }
}
