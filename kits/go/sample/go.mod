module example.org/device

go 1.24.0

require (
	github.com/birthmark/birthmark/kits/go v0.3.0
	github.com/eclipse/paho.mqtt.golang v1.5.1
)

require (
	github.com/gorilla/websocket v1.5.3 // indirect
	golang.org/x/net v0.44.0 // indirect
	golang.org/x/sync v0.17.0 // indirect
)

replace github.com/birthmark/birthmark/kits/go => ../
