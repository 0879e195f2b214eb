package io.github.birthmark.testing;

import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.cert.Certificate;
import java.security.cert.CertificateFactory;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** TLS settings from PEM files. */
final class Tls {
    private static final char[] NO_PASSWORD = {};

    private Tls() {
    }

    static SSLContext context(String trustBundle, String certificateFile, String keyFile) {
        try {
            KeyStore trust = emptyStore();
            for (Certificate one : certificates(trustBundle)) {
                trust.setCertificateEntry("ca-" + trust.size(), one);
            }
            TrustManagerFactory trusted = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
            trusted.init(trust);
            KeyStore keys = emptyStore();
            if (!certificateFile.isEmpty()) {
                Certificate[] chain = certificates(certificateFile);
                String pem = Files.readString(Path.of(keyFile)).replaceAll("-----[A-Z ]+-----", "");
                PKCS8EncodedKeySpec key = new PKCS8EncodedKeySpec(Base64.getMimeDecoder().decode(pem));
                KeyFactory factory = KeyFactory.getInstance(chain[0].getPublicKey().getAlgorithm());
                keys.setKeyEntry("device", factory.generatePrivate(key), NO_PASSWORD, chain);
            }
            KeyManagerFactory shown = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
            shown.init(keys, NO_PASSWORD);
            SSLContext context = SSLContext.getInstance("TLS");
            context.init(shown.getKeyManagers(), trusted.getTrustManagers(), null);
            return context;
        } catch (GeneralSecurityException | IOException error) {
            throw new IllegalArgumentException("unusable: " + certificateFile + ", " + keyFile, error);
        }
    }

    private static KeyStore emptyStore() throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        return store;
    }

    private static Certificate[] certificates(String file) throws GeneralSecurityException, IOException {
        try (InputStream pem = Files.newInputStream(Path.of(file))) {
            return CertificateFactory.getInstance("X.509").generateCertificates(pem).toArray(Certificate[]::new);
        }
    }
}
