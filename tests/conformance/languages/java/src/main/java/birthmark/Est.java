package birthmark;

import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.KeyStore;
import java.security.KeyStoreException;
import java.security.PrivateKey;
import java.security.cert.Certificate;
import java.security.spec.ECGenParameterSpec;
import java.util.Base64;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import javax.net.ssl.X509TrustManager;
import org.bouncycastle.asn1.x500.X500NameBuilder;
import org.bouncycastle.asn1.x500.style.BCStyle;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.jcajce.JcaX509CertificateConverter;
import org.bouncycastle.est.ESTAuth;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.jcajce.JcaHttpAuthBuilder;
import org.bouncycastle.est.jcajce.JsseESTServiceBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;
import org.bouncycastle.pkcs.jcajce.JcaPKCS10CertificationRequestBuilder;

/** Bouncy Castle's EST client as a device that enrolls and renews. */
public final class Est {
    private static final int PATIENCE_MS = Program.PATIENCE_S * 1000;

    private Est() {
    }

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, Est::run);
    }

    private static Object run(String operation) throws Exception {
        String[] place = System.getenv("HOST").split(":");
        var trusted = (X509TrustManager) Pem.trust("CA_FILE").getTrustManagers()[0];
        ESTService service = new JsseESTServiceBuilder(place[0], Integer.parseInt(place[1]), trusted)
            .withKeyManagers(Pem.keys().getKeyManagers()).withTimeout(PATIENCE_MS).build();
        return switch (operation) {
            case "cacerts" -> Map.of("certificates", encoded(ESTService.storeToArray(
                service.getCACerts().getCertificateStore())));
            case "csrattrs" -> Map.of("attributes", service.getCSRAttributes().getAttributesResponse()
                .getRequirements().stream().map(Object::toString).toList());
            case "enroll" -> enroll(service, false, password());
            case "enroll-token" -> enrollToken(service);
            case "reenroll" -> enroll(service, true, null);
            default -> throw Program.unknownOperation(operation);
        };
    }

    private static ESTAuth password() throws Exception {
        if (Program.setting("USERNAME") == null) {
            return null;
        }
        char[] password = System.getenv("PASSWORD").toCharArray();
        return new JcaHttpAuthBuilder(null, System.getenv("USERNAME"), password).setProvider(new BouncyCastleProvider())
            .build();
    }

    private static Object enroll(ESTService service, boolean renews, ESTAuth password) throws Exception {
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
        generator.initialize(new ECGenParameterSpec("secp256r1"));
        KeyPair pair = generator.generateKeyPair();
        return Map.of("certificates", encoded(issued(service, renews, password, pair)));
    }

    /** Enrolls the key of a token, and stores the certificate there. */
    private static Object enrollToken(ESTService service) throws Exception {
        KeyStore token = Pem.token();
        String alias = Collections.list(token.aliases()).stream().filter(one -> isKey(token, one)).findFirst().get();
        PrivateKey key = (PrivateKey) token.getKey(alias, null);
        KeyPair pair = new KeyPair(token.getCertificate(alias).getPublicKey(), key);
        X509CertificateHolder[] found = issued(service, false, password(), pair);
        var certificate = new JcaX509CertificateConverter().getCertificate(found[0]);
        token.setKeyEntry(alias, key, null, new Certificate[] {certificate});
        return Map.of("certificates", encoded(found));
    }

    private static boolean isKey(KeyStore token, String alias) {
        try {
            return token.isKeyEntry(alias);
        } catch (KeyStoreException error) {
            throw new IllegalStateException(error);
        }
    }

    private static X509CertificateHolder[] issued(ESTService service, boolean renews, ESTAuth password, KeyPair pair)
        throws Exception {
        var subject = new X500NameBuilder().addRDN(BCStyle.CN, System.getenv("NAME")).build();
        PKCS10CertificationRequest request = new JcaPKCS10CertificationRequestBuilder(subject, pair.getPublic())
            .build(new JcaContentSignerBuilder("SHA256withECDSA").build(pair.getPrivate()));
        return ESTService.storeToArray(service.simpleEnroll(renews, request, password).getStore());
    }

    private static List<String> encoded(X509CertificateHolder[] found) throws Exception {
        String[] all = new String[found.length];
        for (int place = 0; place < found.length; place++) {
            all[place] = Base64.getEncoder().encodeToString(found[place].getEncoded());
        }
        return List.of(all);
    }
}
