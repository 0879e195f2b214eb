// Package device reads a device's settings from the environment and prints results, one JSON object a line.
package device

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"time"

	"github.com/ThalesGroup/crypto11"
)

// Patience is how long a program waits for a server.
const Patience = 30 * time.Second

// Message is an MQTT message.
type Message struct {
	Topic   string `json:"topic"`
	Payload string `json:"payload"`
}

// AnswerTopic returns where a hub expects the answer to a direct method: PUBLISH, with the parameters of its call.
func AnswerTopic(call string) string {
	_, parameters, _ := strings.Cut(call, "?")
	return os.Getenv("PUBLISH") + "?" + parameters
}

// Print writes a result.
func Print(result any) {
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		panic(err)
	}
}

// Exit prints a client's error, if there is one, and ends the program.
func Exit(err error) {
	if err == nil {
		os.Exit(0)
	}
	Print(map[string]string{"error": err.Error()})
	os.Exit(1)
}

// TLS returns the trust and the certificate of the environment; its key is in a file or in a PKCS#11 token.
func TLS() (*tls.Config, error) {
	roots, err := os.ReadFile(os.Getenv("CA_FILE"))
	if err != nil {
		return nil, err
	}
	config := &tls.Config{RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
	if !config.RootCAs.AppendCertsFromPEM(roots) {
		return nil, errors.New("no certificate in CA_FILE")
	}
	file := os.Getenv("CERT_FILE")
	if file == "" {
		return config, nil
	}
	certificate, err := certificate(file)
	config.Certificates = []tls.Certificate{certificate}
	return config, err
}

func certificate(file string) (tls.Certificate, error) {
	if os.Getenv("PKCS11_MODULE") == "" {
		return tls.LoadX509KeyPair(file, os.Getenv("KEY_FILE"))
	}
	key, err := tokenKey()
	if err != nil {
		return tls.Certificate{}, err
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return tls.Certificate{}, err
	}
	chain := tls.Certificate{PrivateKey: key}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		chain.Certificate = append(chain.Certificate, block.Bytes)
	}
	return chain, nil
}

func tokenKey() (crypto.Signer, error) {
	token, err := crypto11.Configure(&crypto11.Config{
		Path:       os.Getenv("PKCS11_MODULE"),
		TokenLabel: os.Getenv("PKCS11_TOKEN"),
		Pin:        os.Getenv("PKCS11_PIN"),
	})
	if err != nil {
		return nil, err
	}
	key, err := token.FindKeyPair(nil, []byte(os.Getenv("PKCS11_KEY")))
	if err == nil && key == nil {
		err = errors.New("no such key in the token")
	}
	return key, err
}
