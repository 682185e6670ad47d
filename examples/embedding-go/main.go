// Command embedding-go serves a page with a view counter, whose sessions are those of session.wasm in
// wasmtime.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// maxHeaderBytes limits the headers of a request. A byte of the Cookie header takes 32 bytes on its way
// to the component, which reads no more than 16 KiB.
const maxHeaderBytes = 32 << 10

func main() {
	address := flag.String("listen", "127.0.0.1:8080", "the address of the page")
	isConformance := flag.Bool("conformance", false, "serve the conformance scenarios on the port in the last argument")
	flag.Parse()
	path, application := os.Getenv("EDGE_SESSION_COMPONENT"), http.Handler(http.HandlerFunc(counter))
	if *isConformance {
		*address, application = "127.0.0.1:"+flag.Arg(0), http.HandlerFunc(conformance)
	} else if flag.NArg() > 0 {
		path = flag.Arg(0)
	}
	if err := serve(path, *address, application); err != nil {
		fmt.Fprintln(os.Stderr, "embedding-go:", err)
		os.Exit(1)
	}
}

// serve gives an application sessions, with the options in the environment.
func serve(path, address string, application http.Handler) error {
	if path == "" {
		return errors.New("no component: the argument or EDGE_SESSION_COMPONENT names the file session.wasm")
	}
	if store := os.Getenv("EDGE_SESSION_STORE"); store != "" && store != "memory:" {
		return errors.New("EDGE_SESSION_STORE names another store than memory:, which is the only one")
	}
	wasm, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	settings := []Setting{{"secret", Value{Case: "text", Text: os.Getenv("EDGE_SESSION_SECRET")}}}
	if options := os.Getenv("EDGE_SESSION_OPTIONS"); options != "" {
		if settings, err = flatten(settings, "", json.RawMessage(options)); err != nil {
			return fmt.Errorf("EDGE_SESSION_OPTIONS: %w", err)
		}
	}
	engine, err := Open(wasm, settings)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	defer engine.Close()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	server := http.Server{
		Handler:           NewSessions(engine, NewMemoryStore()).Middleware(application),
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    maxHeaderBytes,
	}
	return server.Serve(listener)
}

// flatten appends the options of a JSON object. Those of an object in it have both names: cookie.path.
func flatten(settings []Setting, prefix string, object json.RawMessage) ([]Setting, error) {
	var options map[string]json.RawMessage
	err := json.Unmarshal(object, &options)
	for name, value := range options {
		if value[0] == '{' {
			settings, err = flatten(settings, prefix+name+".", value)
		} else {
			settings = append(settings, Setting{prefix + name, Value{Case: "json", JSON: string(value)}})
		}
	}
	return settings, err
}

// counter is the page with a view counter, and its logout.
func counter(w http.ResponseWriter, r *http.Request) {
	session := SessionOf(r)
	if session == nil {
		http.Error(w, "This page needs a session.", http.StatusInternalServerError)
		return
	}
	views := 0
	switch r.Method + r.URL.Path {
	case "GET/", "HEAD/":
		err := session.Get("views", &views)
		if err == nil {
			views++
			err = session.Set("views", views)
		}
		if err != nil {
			http.Error(w, "The views cannot be counted.", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprintf(w, "<!doctype html>\n<p>%d views\n<form method=post action=/logout><button>Log out</button></form>\n", views)
	case "POST/logout":
		if err := session.Destroy(); err != nil {
			http.Error(w, "You are still logged in.", http.StatusInternalServerError)
			return
		}
		http.Redirect(w, r, "/", http.StatusSeeOther)
	default:
		http.NotFound(w, r)
	}
}
