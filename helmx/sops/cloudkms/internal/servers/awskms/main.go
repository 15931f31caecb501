// Command awskms serves local-kms, an implementation of AWS KMS, on a free port of the
// loopback interface, with the folder that is its argument for its keys. It prints
// where, and ends with its standard input. It checks no signatures.
package main

import (
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/nsmithuk/local-kms/src"
	"github.com/nsmithuk/local-kms/src/config"
	"github.com/nsmithuk/local-kms/src/data"
)

func main() {
	config.AWSRegion, config.AWSAccountId = "eu-west-2", "111122223333"
	database := data.NewDatabase(os.Args[1])
	defer database.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { src.HandleRequest(w, r, database) }))
	defer server.Close()
	if err := json.NewEncoder(os.Stdout).Encode(map[string]string{"address": server.URL}); err != nil {
		log.Print(err)
	}
	_, _ = io.Copy(io.Discard, os.Stdin)
}
