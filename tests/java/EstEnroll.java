// Enrolls over EST with Bouncy Castle, by its documented calls: EstEnroll HOST:PORT CA-FILE USER PASSWORD-FILE CSR-FILE
import java.io.FileInputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.Security;
import java.security.cert.CertificateFactory;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.Set;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.est.ESTService;
import org.bouncycastle.est.EnrollmentResponse;
import org.bouncycastle.est.jcajce.JcaHttpAuthBuilder;
import org.bouncycastle.est.jcajce.JcaJceUtils;
import org.bouncycastle.est.jcajce.JsseESTServiceBuilder;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.pkcs.PKCS10CertificationRequest;

public class EstEnroll {
    public static void main(String[] words) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        X509Certificate root;
        try (FileInputStream file = new FileInputStream(words[1])) {
            root = (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(file);
        }
        ESTService service = new JsseESTServiceBuilder(
                words[0], JcaJceUtils.getCertPathTrustManager(Set.of(new TrustAnchor(root, null)), null)).build();
        char[] password = Files.readString(Path.of(words[3])).trim().toCharArray();
        PKCS10CertificationRequest request = new PKCS10CertificationRequest(Files.readAllBytes(Path.of(words[4])));
        EnrollmentResponse answer = service.simpleEnroll(
                false, request, new JcaHttpAuthBuilder(null, words[2], password).setProvider("BC").build());
        for (X509CertificateHolder one : answer.getStore().getMatches(null)) {
            System.out.println(one.getSubject());
        }
    }
}
