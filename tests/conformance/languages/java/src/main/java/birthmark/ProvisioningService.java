package birthmark;

import com.microsoft.azure.sdk.iot.provisioning.service.ProvisioningServiceClient;
import com.microsoft.azure.sdk.iot.provisioning.service.Query;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.Attestation;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.BulkOperationMode;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.EnrollmentGroup;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.IndividualEnrollment;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.ProvisioningStatus;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.QuerySpecification;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.QuerySpecificationBuilder;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.QuerySpecificationBuilder.FromType;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.SymmetricKeyAttestation;
import com.microsoft.azure.sdk.iot.provisioning.service.configs.X509Attestation;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import javax.net.ssl.HttpsURLConnection;

/** Azure's provisioning service SDK for Java as a back end of DPS. */
public final class ProvisioningService {
    private static final String NAME = System.getenv("NAME");
    private static final int PAGE = 10;

    private ProvisioningService() {
    }

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, ProvisioningService::run);
    }

    private static Object run(String operation) throws Exception {
        HttpsURLConnection.setDefaultSSLSocketFactory(Pem.context().getSocketFactory());
        ProvisioningServiceClient service =
            ProvisioningServiceClient.createFromConnectionString(System.getenv("CONNECTION_STRING"));
        return switch (operation) {
            case "enroll" -> told(service.createOrUpdateIndividualEnrollment(wanted()));
            case "get" -> told(service.getIndividualEnrollment(NAME));
            case "disable" -> {
                IndividualEnrollment found = service.getIndividualEnrollment(NAME);
                found.setProvisioningStatus(ProvisioningStatus.DISABLED);
                yield told(service.createOrUpdateIndividualEnrollment(found));
            }
            case "keys" -> {
                var found = service.getIndividualEnrollmentAttestationMechanism(NAME).getAttestation();
                yield Map.of("key", ((SymmetricKeyAttestation) found).getPrimaryKey());
            }
            case "remove" -> {
                service.deleteIndividualEnrollment(NAME);
                yield null;
            }
            case "bulk" -> bulk(service);
            case "group" -> group(service);
            case "registration" -> registration(service);
            default -> throw Program.unknownOperation(operation);
        };
    }

    private static IndividualEnrollment wanted() throws Exception {
        Attestation attestation = new SymmetricKeyAttestation(null, null);
        if (Program.setting("CERT_FILE") != null) {
            String certificate = Files.readString(Path.of(System.getenv("CERT_FILE")));
            attestation = X509Attestation.createFromClientCertificates(certificate);
        }
        return new IndividualEnrollment(NAME, attestation);
    }

    private static Object told(IndividualEnrollment found) {
        return Map.of("name", found.getRegistrationId(), "status", found.getProvisioningStatus());
    }

    private static Object bulk(ProvisioningServiceClient service) throws Exception {
        List<IndividualEnrollment> wanted = Stream.of("one", "two").map(end ->
            new IndividualEnrollment(NAME + "-" + end, new SymmetricKeyAttestation(null, null))).toList();
        boolean isCreated = service.runBulkEnrollmentOperation(BulkOperationMode.CREATE, wanted).getSuccessful();
        Query query = service.createIndividualEnrollmentQuery(all(FromType.ENROLLMENTS), PAGE);
        List<String> names = new ArrayList<>();
        while (query.hasNext()) {
            for (Object one : query.next().getItems()) {
                names.add(((IndividualEnrollment) one).getRegistrationId());
            }
        }
        boolean isDeleted = service.runBulkEnrollmentOperation(BulkOperationMode.DELETE, wanted).getSuccessful();
        return Map.of("created", isCreated, "names", names.stream().sorted().toList(), "deleted", isDeleted);
    }

    private static Object group(ProvisioningServiceClient service) throws Exception {
        String root = Files.readString(Path.of(System.getenv("ROOT_FILE")));
        EnrollmentGroup made = service.createOrUpdateEnrollmentGroup(
            new EnrollmentGroup(NAME, X509Attestation.createFromRootCertificates(root)));
        made.setProvisioningStatus(ProvisioningStatus.DISABLED);
        service.createOrUpdateEnrollmentGroup(made);
        EnrollmentGroup found = service.getEnrollmentGroup(NAME);
        int number = service.createEnrollmentGroupQuery(all(FromType.ENROLLMENT_GROUPS), PAGE).next().getItems().length;
        Query registered =
            service.createEnrollmentGroupRegistrationStateQuery(all(FromType.DEVICE_REGISTRATIONS), NAME, PAGE);
        Object[] states = registered.next().getItems();
        service.deleteEnrollmentGroup(NAME);
        return Map.of("name", found.getEnrollmentGroupId(), "status", found.getProvisioningStatus(), "number", number,
            "registered", states.length);
    }

    private static Object registration(ProvisioningServiceClient service) throws Exception {
        var found = service.getDeviceRegistrationState(NAME);
        service.deleteDeviceRegistrationState(NAME);
        return Map.of("device", found.getDeviceId(), "hub", found.getAssignedHub(), "status", found.getStatus());
    }

    private static QuerySpecification all(FromType from) {
        return new QuerySpecificationBuilder("*", from).createSqlQuery();
    }
}
