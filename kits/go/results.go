package birthmark

// Endpoints are what clients connect to; each map has the members that `birthmark test-server --json` prints.
type Endpoints struct {
	TrustBundle           string `json:"trust_bundle"`
	EST, DPS, IoTHub, AWS map[string]any
}

// Files are the paths of a certificate and its key.
type Files struct {
	CertificateFile string `json:"certificate_file"`
	KeyFile         string `json:"key_file"`
}

// Device is a device of DPS or IoT Hub; Files or SymmetricKey is empty.
type Device struct {
	Name             string
	RegistrationID   string `json:"registration_id"`
	ProvisioningHost string `json:"provisioning_host"`
	IDScope          string `json:"id_scope"`
	HubHost          string `json:"hub_host"`
	Files            Files
	SymmetricKey     string `json:"symmetric_key"`
	ConnectionString string `json:"connection_string"`
	Environment      map[string]string
}

// Thing is a thing of AWS IoT Core.
type Thing struct {
	Name          string
	Endpoint      string
	Region        string
	CertificateID string `json:"certificate_id"`
	Files         Files
	Environment   map[string]string
}

// EstIdentity is a certificate that the CA issued, and the credentials of its EST client.
type EstIdentity struct {
	Name, URL, Username, Password string
	Files                         Files
	Environment                   map[string]string
}

// Chip is a simulated secure element; Environment has what its PKCS#11 library needs.
type Chip struct {
	Name, Directory string
	Files
	KeyLabel    string `json:"key_label"`
	Environment map[string]string
}

// Message is a message at the hub, or one that a thing published to Topic.
type Message struct{ Topic, Body, Encoding string }

// Refusal is a rejected request of a device.
type Refusal struct{ Code, Message, Cause, Fix string }

type items[T any] struct{ Items []T }
