package birthmark;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Makes TLS settings of the PEM files that the environment names. */
final class Pem {
    private static final char[] PASSWORD = {};

    private Pem() {
    }

    /** Trusts CA_FILE, and shows CERT_FILE if there is one. */
    static SSLContext context() throws GeneralSecurityException, IOException {
        KeyStore trust = emptyStore();
        trust.setCertificateEntry("ca", certificates("CA_FILE")[0]);
        TrustManagerFactory trusted = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trusted.init(trust);
        KeyStore keys = emptyStore();
        if (System.getenv("CERT_FILE") != null) {
            keys.setKeyEntry("device", key(), PASSWORD, certificates("CERT_FILE"));
        }
        KeyManagerFactory shown = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        shown.init(keys, PASSWORD);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(shown.getKeyManagers(), trusted.getTrustManagers(), null);
        return context;
    }

    private static KeyStore emptyStore() throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        return store;
    }

    private static Certificate[] certificates(String setting) throws GeneralSecurityException, IOException {
        byte[] text = Files.readAllBytes(Path.of(System.getenv(setting)));
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        return factory.generateCertificates(new ByteArrayInputStream(text)).toArray(new Certificate[0]);
    }

    private static PrivateKey key() throws GeneralSecurityException, IOException {
        String text = Files.readString(Path.of(System.getenv("KEY_FILE")));
        byte[] der = Base64.getMimeDecoder().decode(text.replaceAll("-----[A-Z ]+-----", ""));
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(der));
    }
}
