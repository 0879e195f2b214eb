package birthmark;

import java.util.Map;
import javax.net.ssl.TrustManager;
import software.amazon.awssdk.core.SdkBytes;
import software.amazon.awssdk.http.SdkHttpClient;
import software.amazon.awssdk.http.apache.ApacheHttpClient;
import software.amazon.awssdk.services.iot.IotClient;
import software.amazon.awssdk.services.iotdataplane.IotDataPlaneClient;
import software.amazon.awssdk.services.iotjobsdataplane.IotJobsDataPlaneClient;
import software.amazon.awssdk.services.iotjobsdataplane.model.JobExecutionStatus;

/** The AWS SDK for Java as an operator of things; endpoints and credentials come from the SDK's own variables. */
public final class Aws {
    private Aws() {
    }

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, Aws::run);
    }

    private static Object run(String operation) throws Exception {
        TrustManager[] trusted = Pem.trust("AWS_CA_BUNDLE").getTrustManagers(); // the SDK does not read this variable
        SdkHttpClient http = ApacheHttpClient.builder().tlsTrustManagersProvider(() -> trusted).build();
        IotClient control = IotClient.builder().httpClient(http).build();
        IotDataPlaneClient data = IotDataPlaneClient.builder().httpClient(http).build();
        String thing = System.getenv("THING");
        switch (operation) {
            case "create" -> {
                return Map.of("arn", control.createThing(made -> made.thingName(thing)).thingArn());
            }
            case "describe" -> {
                var found = control.describeThing(sought -> sought.thingName(thing));
                return Map.of("arn", found.thingArn(), "version", found.version());
            }
            case "certificate" -> {
                return certificate(control, thing);
            }
            case "job" -> {
                return job(control);
            }
            case "execution" -> {
                return execution(IotJobsDataPlaneClient.builder().httpClient(http).build(), thing);
            }
            case "shadow" -> {
                data.updateThingShadow(update -> update.thingName(thing).payload(payload()));
                SdkBytes found = data.getThingShadow(sought -> sought.thingName(thing)).payload();
                return Map.of("shadow", found.asUtf8String());
            }
            case "publish" -> {
                data.publish(message -> message.topic(System.getenv("PUBLISH")).qos(1).payload(payload()));
                return Map.of("published", true);
            }
            default -> throw Program.unknownOperation(operation);
        }
    }

    private static SdkBytes payload() {
        return SdkBytes.fromUtf8String(System.getenv("PAYLOAD"));
    }

    private static Object certificate(IotClient control, String thing) {
        var made = control.createKeysAndCertificate(wanted -> wanted.setAsActive(true));
        String arn = made.certificateArn();
        control.attachThingPrincipal(attached -> attached.thingName(thing).principal(arn));
        control.attachPolicy(attached -> attached.policyName(System.getenv("POLICY")).target(arn));
        return Map.of("certificate", made.certificatePem(), "key", made.keyPair().privateKey());
    }

    private static Object job(IotClient control) {
        String id = System.getenv("JOB");
        String document = System.getenv("PAYLOAD");
        control.createJob(job -> job.jobId(id).targets(System.getenv("TARGET")).document(document));
        return Map.of("status", control.describeJob(sought -> sought.jobId(id)).job().statusAsString());
    }

    /** Starts the next job of a thing, and reports its success. */
    private static Object execution(IotJobsDataPlaneClient jobs, String thing) {
        var next = jobs.startNextPendingJobExecution(started -> started.thingName(thing)).execution();
        jobs.updateJobExecution(report -> report.thingName(thing).jobId(next.jobId())
            .status(JobExecutionStatus.SUCCEEDED));
        return Map.of("job", next.jobId(), "document", next.jobDocument());
    }
}
