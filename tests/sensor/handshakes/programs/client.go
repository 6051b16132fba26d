// A client of TLS as Go programs have it: net/http's own, or one with a name and protocols of the test's.
package main

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"strings"
)

func main() {
	address, name, protocols := os.Args[1], os.Args[2], strings.Split(os.Args[3], ",")
	if name == "" {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
		response, err := (&http.Client{Transport: transport}).Get("https://" + address + "/")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		response.Body.Close()
		return
	}
	connection, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true, ServerName: name, NextProtos: protocols})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	connection.Close()
}
