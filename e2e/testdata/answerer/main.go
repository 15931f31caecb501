// Command answerer is what smoke tests are tried on: over HTTP, TCP and gRPC it
// answers well, badly, slowly or now and then. With arguments it is a job.
package main

import (
	"bufio"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func main() {
	if len(os.Args) > 1 {
		os.Exit(job(os.Args[1]))
	}
	go serveTCP()
	go serveGRPC()
	log.Fatal((&http.Server{Addr: ":8080", Handler: pages(), ReadHeaderTimeout: 5 * time.Second}).ListenAndServe())
}

func job(name string) int {
	switch name {
	case "pass":
		fmt.Println("all 3 checks passed")
		return 0
	case "secret":
		fmt.Println("the secret has", len(os.Getenv("SECRET")), "characters")
		return 0
	case "second": // of an indexed job only the run with index 1 fails
		if os.Getenv("JOB_COMPLETION_INDEX") == "1" {
			fmt.Println("check 2 failed")
			return 3
		}
		return 0
	case "hang":
		time.Sleep(time.Hour)
	}
	fmt.Println("check 2 failed: no such book")
	return 3
}

func pages() http.Handler {
	var visits atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"status":"ok","checks":[{"name":"db","status":"ok"},{"name":"cache","status":"stale"}]}`)
	})
	mux.HandleFunc("/motto", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getenv("MOTTO")) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "no database: password=canary-in-body", http.StatusInternalServerError)
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(700 * time.Millisecond)
		fmt.Fprint(w, "slow")
	})
	mux.HandleFunc("/stuck", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/flaky", func(w http.ResponseWriter, _ *http.Request) {
		if visits.Add(1)%5 == 0 {
			http.Error(w, "now and then", http.StatusTeapot)
		}
	})
	mux.HandleFunc("/private", func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer canary-") {
			http.Error(w, "who are you?", http.StatusUnauthorized)
			return
		}
		fmt.Fprint(w, "welcome, ", r.Header.Get("Authorization"))
	})
	return mux
}

func serveTCP() {
	l, err := net.Listen("tcp", ":9000")
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close()
			for s := bufio.NewScanner(conn); s.Scan(); {
				fmt.Fprintf(conn, "+PONG %s\r\n", s.Text())
			}
		}()
	}
}

func serveGRPC() {
	l, err := net.Listen("tcp", ":9090")
	if err != nil {
		log.Fatal(err)
	}
	state := health.NewServer()
	state.SetServingStatus("shop.Orders", healthpb.HealthCheckResponse_SERVING)
	state.SetServingStatus("shop.Returns", healthpb.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, state)
	log.Fatal(server.Serve(l))
}
