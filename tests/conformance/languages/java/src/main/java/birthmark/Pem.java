package birthmark;

import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Security;
import java.security.cert.CertificateFactory;
import java.security.cert.X509Certificate;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.Base64;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** Makes TLS settings of the PEM files and the token that the environment names. */
final class Pem {
    private static final char[] PASSWORD = {};

    private Pem() {
    }

    /** Trusts CA_FILE, and presents CERT_FILE if there is one. */
    static SSLContext context() throws GeneralSecurityException, IOException {
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys().getKeyManagers(), trust("CA_FILE").getTrustManagers(), null);
        return context;
    }

    /** Returns the trust in the certificates of the file that a setting names. */
    static TrustManagerFactory trust(String setting) throws GeneralSecurityException, IOException {
        KeyStore trust = emptyStore();
        for (X509Certificate one : certificates(setting)) {
            trust.setCertificateEntry(one.getSerialNumber() + one.getSubjectX500Principal().getName(), one);
        }
        TrustManagerFactory trusted = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trusted.init(trust);
        return trusted;
    }

    /** Returns the key of the device: in the token PKCS11_MODULE, or in KEY_FILE with CERT_FILE. */
    static KeyManagerFactory keys() throws GeneralSecurityException, IOException {
        KeyManagerFactory shown = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        if (Program.setting("PKCS11_MODULE") != null) {
            shown.init(token(), null);
            return shown;
        }
        KeyStore keys = emptyStore();
        if (Program.setting("CERT_FILE") != null) {
            keys.setKeyEntry("device", key(), PASSWORD, certificates("CERT_FILE"));
        }
        shown.init(keys, PASSWORD);
        return shown;
    }

    static X509Certificate[] certificates(String setting) throws GeneralSecurityException, IOException {
        byte[] text = Files.readAllBytes(Path.of(System.getenv(setting)));
        CertificateFactory factory = CertificateFactory.getInstance("X.509");
        return factory.generateCertificates(new ByteArrayInputStream(text)).toArray(new X509Certificate[0]);
    }

    /** Opens the first token by SunPKCS11. */
    static KeyStore token() throws GeneralSecurityException, IOException {
        if (Security.getProvider("SunPKCS11-Token") == null) { // a key is usable with its own provider only
            String settings = "--name=Token\nlibrary=%s\nslotListIndex=0".formatted(System.getenv("PKCS11_MODULE"));
            Security.addProvider(Security.getProvider("SunPKCS11").configure(settings));
        }
        KeyStore store = KeyStore.getInstance("PKCS11", "SunPKCS11-Token");
        store.load(null, System.getenv("PKCS11_PIN").toCharArray());
        return store;
    }

    private static KeyStore emptyStore() throws GeneralSecurityException, IOException {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        return store;
    }

    private static PrivateKey key() throws GeneralSecurityException, IOException {
        String text = Files.readString(Path.of(System.getenv("KEY_FILE")));
        byte[] der = Base64.getMimeDecoder().decode(text.replaceAll("-----[A-Z ]+-----", ""));
        return KeyFactory.getInstance("EC").generatePrivate(new PKCS8EncodedKeySpec(der));
    }
}
