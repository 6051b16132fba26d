// A client of TLS as Go programs have it: net/http's own, or one with a name and protocols of the test's, which may hide the name.
package main

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
)

func main() {
	address, name, protocols, public := os.Args[1], os.Args[2], strings.Split(os.Args[3], ","), os.Args[4]
	var err error
	if name == "" {
		err = get("https://" + address + "/")
	} else {
		err = shake(address, name, protocols, public)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func get(url string) error {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	response, err := (&http.Client{Transport: transport}).Get(url)
	if err != nil {
		return err
	}
	return response.Body.Close()
}

// With a public name the other one is sent encrypted. A server that knows nothing of it refuses, after a whole handshake.
func shake(address, name string, protocols []string, public string) error {
	config := &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: protocols}
	if public != "" {
		list, err := echConfigList(public)
		if err != nil {
			return err
		}
		config.MinVersion = tls.VersionTLS13
		config.EncryptedClientHelloConfigList = list
		config.EncryptedClientHelloRejectionVerify = func(tls.ConnectionState) error { return nil }
	}
	connection, err := tls.Dial("tcp", address, config)
	var rejected *tls.ECHRejectionError
	if public != "" && errors.As(err, &rejected) {
		return nil
	}
	if err != nil {
		return err
	}
	return connection.Close()
}

// A list of one, as servers publish it in DNS (RFC 9849 section 4): X25519, HKDF-SHA256 and AES-128-GCM, of a key that nobody has.
func echConfigList(public string) ([]byte, error) {
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	contents := []byte{1, 0x00, 0x20}
	contents = append(contents, sized(key.PublicKey().Bytes())...)
	contents = append(contents, sized([]byte{0x00, 0x01, 0x00, 0x01})...)
	contents = append(contents, 64, byte(len(public)))
	contents = append(contents, public...)
	contents = append(contents, sized(nil)...)
	return sized(append([]byte{0xfe, 0x0d}, sized(contents)...)), nil
}

func sized(data []byte) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(data))), data...)
}
