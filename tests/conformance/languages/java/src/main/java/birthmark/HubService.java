package birthmark;

import com.microsoft.azure.sdk.iot.service.auth.AuthenticationType;
import com.microsoft.azure.sdk.iot.service.configurations.Configuration;
import com.microsoft.azure.sdk.iot.service.configurations.ConfigurationContent;
import com.microsoft.azure.sdk.iot.service.configurations.ConfigurationsClient;
import com.microsoft.azure.sdk.iot.service.jobs.ScheduledJobStatus;
import com.microsoft.azure.sdk.iot.service.jobs.ScheduledJobType;
import com.microsoft.azure.sdk.iot.service.jobs.ScheduledJobsClient;
import com.microsoft.azure.sdk.iot.service.messaging.AcknowledgementType;
import com.microsoft.azure.sdk.iot.service.messaging.DeliveryAcknowledgement;
import com.microsoft.azure.sdk.iot.service.messaging.IotHubServiceClientProtocol;
import com.microsoft.azure.sdk.iot.service.messaging.Message;
import com.microsoft.azure.sdk.iot.service.messaging.MessageFeedbackProcessorClient;
import com.microsoft.azure.sdk.iot.service.messaging.MessageFeedbackProcessorClientOptions;
import com.microsoft.azure.sdk.iot.service.messaging.MessagingClient;
import com.microsoft.azure.sdk.iot.service.messaging.MessagingClientOptions;
import com.microsoft.azure.sdk.iot.service.methods.DirectMethodRequestOptions;
import com.microsoft.azure.sdk.iot.service.methods.DirectMethodsClient;
import com.microsoft.azure.sdk.iot.service.query.QueryClient;
import com.microsoft.azure.sdk.iot.service.registry.Device;
import com.microsoft.azure.sdk.iot.service.registry.DeviceStatus;
import com.microsoft.azure.sdk.iot.service.registry.Module;
import com.microsoft.azure.sdk.iot.service.registry.RegistryClient;
import com.microsoft.azure.sdk.iot.service.registry.RegistryJob;
import com.microsoft.azure.sdk.iot.service.twin.Twin;
import com.microsoft.azure.sdk.iot.service.twin.TwinClient;
import java.util.ArrayList;
import java.util.Date;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLContext;

/** Azure's service SDK for Java as a back end of a hub. */
public final class HubService {
    private static final String HUB = System.getenv("CONNECTION_STRING");
    private static final String DEVICE = System.getenv("DEVICE");
    private static final int JOB_S = 60;

    private HubService() {
    }

    /** Runs the operation that the first argument names. */
    public static void main(String[] arguments) {
        Program.run(arguments, HubService::run);
    }

    private static Object run(String operation) throws Exception {
        SSLContext context = Pem.context();
        HttpsURLConnection.setDefaultSSLSocketFactory(context.getSocketFactory());
        return switch (operation) {
            case "create" -> create();
            case "get" -> device(new RegistryClient(HUB).getDevice(DEVICE));
            case "certificate" -> certificate();
            case "module" -> module();
            case "disable" -> disable();
            case "remove" -> {
                new RegistryClient(HUB).removeDevice(DEVICE);
                yield null;
            }
            case "count" -> Map.of("devices", new RegistryClient(HUB).getStatistics().getTotalDeviceCount());
            case "twin" -> twin();
            case "replace" -> replace();
            case "query" -> query();
            case "method" -> method();
            case "send" -> send(context);
            case "configuration" -> configuration();
            case "job" -> job();
            case "cancel" -> cancel();
            case "export" -> export();
            case "import" -> imported();
            default -> throw Program.unknownOperation(operation);
        };
    }

    private static Object create() throws Exception {
        return device(new RegistryClient(HUB).addDevice(new Device(DEVICE)));
    }

    private static Object device(Device found) {
        return Map.of("device", found.getDeviceId(), "key", found.getPrimaryKey(), "status", found.getStatus());
    }

    private static Object certificate() throws Exception {
        Device device = new Device(DEVICE, AuthenticationType.SELF_SIGNED);
        device.setThumbprint(System.getenv("THUMBPRINT"), System.getenv("THUMBPRINT"));
        Device made = new RegistryClient(HUB).addDevice(device);
        return Map.of("thumbprint", made.getPrimaryThumbprint(), "type", made.getAuthenticationType());
    }

    private static Object module() throws Exception {
        RegistryClient registry = new RegistryClient(HUB);
        registry.addModule(new Module(DEVICE, "pump"));
        Module made = registry.getModule(DEVICE, "pump");
        made.setThumbprint(System.getenv("THUMBPRINT"), System.getenv("THUMBPRINT"));
        registry.addModule(new Module(DEVICE, "valve", AuthenticationType.CERTIFICATE_AUTHORITY));
        registry.updateModule(made);
        List<String> names = registry.getModulesOnDevice(DEVICE).stream().map(Module::getId).sorted().toList();
        registry.removeModule(DEVICE, "pump");
        return Map.of("modules", names, "left", registry.getModulesOnDevice(DEVICE).size());
    }

    private static Object disable() throws Exception {
        RegistryClient registry = new RegistryClient(HUB);
        Device found = registry.getDevice(DEVICE);
        found.setStatus(DeviceStatus.Disabled);
        return device(registry.updateDevice(found));
    }

    private static Object twin() throws Exception {
        TwinClient twins = new TwinClient(HUB);
        Twin change = new Twin(DEVICE);
        change.getTags().put("site", "north");
        change.getDesiredProperties().put("valve", System.getenv("PAYLOAD"));
        twins.patch(change);
        return told(twins.get(DEVICE));
    }

    private static Object replace() throws Exception {
        TwinClient twins = new TwinClient(HUB);
        Twin found = twins.get(DEVICE);
        found.getTags().put("site", "south");
        twins.replace(found);
        return told(twins.get(DEVICE));
    }

    private static Object told(Twin twin) {
        return Map.of("tags", twin.getTags(), "desired", twin.getDesiredProperties().get("valve"));
    }

    private static Object query() throws Exception {
        QueryClient queries = new QueryClient(HUB);
        List<String> names = new ArrayList<>();
        var twins = queries.queryTwins("SELECT * FROM devices WHERE tags.site = 'north'");
        while (twins.hasNext()) {
            names.add(twins.next().getDeviceId());
        }
        String text = "SELECT tags.site, COUNT() AS number FROM devices WHERE deviceId = '%s' GROUP BY tags.site"
            .formatted(DEVICE);
        String sites = queries.queryRaw(text).next();
        return Map.of("devices", names, "raw", sites);
    }

    private static Object method() throws Exception {
        var options = DirectMethodRequestOptions.builder().payload(Map.of("speed", 1)).build();
        var answer = new DirectMethodsClient(HUB).invoke(DEVICE, "open", options);
        return Map.of("status", answer.getStatus(), "payload", answer.getPayloadAsJsonElement());
    }

    /** Sends a message to the device, and prints the feedback on it until the input ends. */
    private static Object send(SSLContext context) throws Exception {
        IotHubServiceClientProtocol protocol = IotHubServiceClientProtocol.valueOf(System.getenv("PROTOCOL"));
        var options = MessageFeedbackProcessorClientOptions.builder().sslContext(context).build();
        MessageFeedbackProcessorClient feedback = new MessageFeedbackProcessorClient(HUB, protocol, batch -> {
            batch.getRecords().forEach(one -> Program.print(
                Map.of("feedback", one.getStatusCode(), "message", one.getOriginalMessageId())));
            return AcknowledgementType.COMPLETE;
        }, options);
        feedback.start();
        MessagingClient sender = new MessagingClient(HUB, protocol,
            MessagingClientOptions.builder().sslContext(context).build());
        sender.open();
        Message message = new Message(System.getenv("PAYLOAD"));
        message.setMessageId("one");
        message.setDeliveryAcknowledgement(DeliveryAcknowledgement.Full);
        sender.send(DEVICE, message);
        Program.print(Map.of("sent", true));
        Program.inputEnded();
        sender.close();
        feedback.stop();
        return null;
    }

    private static Object configuration() throws Exception {
        ConfigurationsClient configurations = new ConfigurationsClient(HUB);
        Configuration wanted = new Configuration(System.getenv("CONFIGURATION"));
        ConfigurationContent content = new ConfigurationContent();
        content.setDeviceContent(new HashMap<>(Map.of("properties.desired.mode", Map.of("value", "eco"))));
        wanted.setContent(content);
        wanted.setTargetCondition("deviceId = '" + DEVICE + "'");
        wanted.setPriority(1);
        configurations.create(wanted);
        Configuration made = configurations.get(wanted.getId());
        made.setPriority(2);
        configurations.replace(made);
        int number = configurations.get(10).size();
        int priority = configurations.get(wanted.getId()).getPriority();
        configurations.delete(wanted.getId());
        return Map.of("priority", priority, "number", number);
    }

    private static Object job() throws Exception {
        ScheduledJobsClient jobs = new ScheduledJobsClient(HUB);
        Twin change = new Twin();
        change.getTags().put("site", "east");
        String id = System.getenv("JOB");
        jobs.scheduleUpdateTwin(id, "deviceId = '" + DEVICE + "'", change, new Date(), JOB_S);
        while (jobs.get(id).getJobStatus() != ScheduledJobStatus.completed) {
            Thread.sleep(100);
        }
        List<String> names = new ArrayList<>();
        var found = jobs.query(ScheduledJobType.scheduleUpdateTwin, ScheduledJobStatus.completed);
        while (found.hasNext()) {
            names.add(found.next().getJobId());
        }
        return Map.of("listed", names.contains(id), "site", new TwinClient(HUB).get(DEVICE).getTags().get("site"));
    }

    private static Object cancel() throws Exception {
        ScheduledJobsClient jobs = new ScheduledJobsClient(HUB);
        String id = System.getenv("JOB");
        Date tomorrow = new Date(System.currentTimeMillis() + 86_400_000L);
        jobs.scheduleDirectMethod(id, "deviceId = '" + DEVICE + "'", "open", tomorrow);
        jobs.cancel(id);
        return Map.of("status", jobs.get(id).getJobStatus());
    }

    private static Object export() throws Exception {
        RegistryClient registry = new RegistryClient(HUB);
        return ended(registry, registry.exportDevices(System.getenv("URL"), true));
    }

    private static Object imported() throws Exception {
        RegistryClient registry = new RegistryClient(HUB);
        return ended(registry, registry.importDevices(System.getenv("URL"), System.getenv("URL")));
    }

    private static Object ended(RegistryClient registry, RegistryJob job) throws Exception {
        String status = String.valueOf(job.getStatus());
        while (!status.equals("COMPLETED") && !status.equals("FAILED")) {
            Thread.sleep(100);
            status = String.valueOf(registry.getJob(job.getJobId()).getStatus());
        }
        return Map.of("status", status);
    }
}
