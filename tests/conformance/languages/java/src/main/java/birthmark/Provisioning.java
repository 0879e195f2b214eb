package birthmark;

import com.microsoft.azure.sdk.iot.provisioning.device.AdditionalData;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClient;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientRegistrationResult;
import com.microsoft.azure.sdk.iot.provisioning.device.ProvisioningDeviceClientTransportProtocol;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProvider;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProviderSymmetricKey;
import com.microsoft.azure.sdk.iot.provisioning.security.SecurityProviderX509;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.Key;
import java.security.cert.X509Certificate;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import javax.net.ssl.SSLContext;

/** Azure's provisioning device SDK for Java as a device of DPS. */
public final class Provisioning {
    private Provisioning() {
    }

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, Provisioning::run);
    }

    private static Object run(String operation) throws Exception {
        if (!operation.equals("register")) {
            throw Program.unknownOperation(operation);
        }
        var protocol = ProvisioningDeviceClientTransportProtocol.valueOf(System.getenv("PROTOCOL"));
        SecurityProvider security = Program.setting("SYMMETRIC_KEY") == null ? new WithCertificate() : new WithKey();
        ProvisioningDeviceClient client = ProvisioningDeviceClient.create(
            System.getenv("HOST"), System.getenv("ID_SCOPE"), protocol, security);
        AdditionalData more = new AdditionalData();
        if (Program.setting("PAYLOAD") != null) {
            more.setProvisioningPayload(System.getenv("PAYLOAD"));
        }
        ProvisioningDeviceClientRegistrationResult result;
        try {
            result = client.registerDeviceSync(more);
        } finally {
            client.close();
        }
        String status = result.getProvisioningDeviceClientStatus().toString();
        if (!status.equals("PROVISIONING_DEVICE_STATUS_ASSIGNED")) {
            throw new IllegalStateException(status);
        }
        return Map.of("device", result.getDeviceId(), "hub", result.getIothubUri());
    }

    private static SSLContext context() {
        try {
            return Pem.context();
        } catch (GeneralSecurityException | IOException error) {
            throw new IllegalStateException(error);
        }
    }

    /** A symmetric key, with the trust of the environment. */
    private static final class WithKey extends SecurityProviderSymmetricKey {
        WithKey() {
            super(System.getenv("SYMMETRIC_KEY").getBytes(StandardCharsets.UTF_8), System.getenv("REGISTRATION_ID"));
        }

        @Override
        public SSLContext getSSLContext() {
            return context();
        }
    }

    /** A certificate whose key may be in a token: the client only uses the TLS context. */
    private static final class WithCertificate extends SecurityProviderX509 {
        private final X509Certificate certificate;

        WithCertificate() throws GeneralSecurityException, IOException {
            certificate = Pem.certificates("CERT_FILE")[0];
        }

        @Override
        public String getClientCertificateCommonName() {
            return System.getenv("REGISTRATION_ID");
        }

        @Override
        public X509Certificate getClientCertificate() {
            return certificate;
        }

        @Override
        public Key getClientPrivateKey() {
            return null;
        }

        @Override
        public Collection<X509Certificate> getIntermediateCertificatesChain() {
            return List.of();
        }

        @Override
        public SSLContext getSSLContext() {
            return context();
        }
    }
}
